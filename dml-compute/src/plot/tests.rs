use std::collections::BTreeMap;

use dml_core::{Digest, Params, Task, Value, rng};
use ndarray::{Array1, Array2};

use super::*;
use crate::{
    learner::Scores,
    metrics::{Confusion, LearningCurve, LearningPoint, Metrics, RocCurve, Sample, Tally},
    search::Trial,
};

/// Three classes, told apart fairly well.
fn classified() -> (Report, Curves) {
    let labels = ["Adelie", "Chinstrap", "<Gentoo & \"others\">"].map(String::from);
    let truth = Array1::from_shape_fn(300, |i| (i % 3) as f64);
    let raw = |(i, c): (usize, usize)| {
        let own = if i % 3 == c { 0.8 } else { 0.0 };
        own + rng::unit(c as u64, i as u64)
    };
    let mut p = Array2::from_shape_fn((300, 3), raw);
    p.rows_mut().into_iter().for_each(|mut row| row /= row.sum());
    let mut tally = Tally::new(Task::Classification, 3);
    tally.record(&Scores::Probabilities(p), truth.view());
    let curves = Curves { roc: tally.curves(&labels), ..Curves::default() };
    (Metrics::summarise(&[tally.metrics()], &labels), curves)
}

/// Fifty iterations, the last of them too many.
fn learned() -> LearningCurve {
    let point = |step: u32| {
        let t = f64::from(step);
        LearningPoint { steps: step, train: 40_000.0 / t + 9_000.0, test: 40_000.0 / t + 12_000.0 + 60.0 * t }
    };
    LearningCurve { metric: "rmse".into(), points: (1..=50).map(point).collect() }
}

/// Prices with errors that grow.
fn regressed() -> (Report, Curves) {
    let mut sample = Sample::default();
    for row in 0..400 {
        let truth = 30_000.0 + 150_000.0 * rng::unit(1, row);
        sample.record(3, row, truth, truth * (0.8 + 0.4 * rng::unit(2, row)));
    }
    (
        Report { rows: 400, ..Report::default() },
        Curves { predicted: sample.points(), learning: Some(learned()), ..Curves::default() },
    )
}

/// Elements that are closed, and texts without loose marks.
fn check(svg: &str) {
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    for line in svg.lines().filter(|line| line.starts_with('<') && *line != "</svg>") {
        let name: String = line[1..].chars().take_while(char::is_ascii_alphabetic).collect();
        let closed = line.ends_with("/>") || line.ends_with(&format!("</{name}>"));
        assert!(closed || ["svg", "style"].contains(&name.as_str()) || line == "</style>", "{line}");
        assert!(!line.contains("NaN") && !line.contains("inf"), "{line}");
    }
}

#[test]
fn pictures_are_golden() {
    let digests = [classified(), regressed()].map(|(report, curves)| {
        let svg = draw("penguins-species/ridge on 300 rows", &report, &curves).unwrap();
        check(&svg);
        Digest::of(svg.as_bytes()).to_string()
    });
    assert_eq!(digests, GOLDEN, "look at what changed: write the pictures to files and open them");
}

const GOLDEN: [&str; 2] = [
    "aebc08898b015b424233fca74543677661d712ad9fba806ad57d49ae951681e8",
    "7214a33ef4cc25bf5b1dbb59225d5a1e95c0a089753d0b89466bda1e0acbc0db",
];

#[test]
fn what_is_drawn_stays_in_the_frame_and_names_are_text() {
    let (report, curves) = classified();
    let svg = draw("a < b & c", &report, &curves).unwrap();
    assert!(svg.contains("a &lt; b &amp; c") && svg.contains("&lt;Gentoo &amp; &quot;othe…"));
    assert_eq!(svg.matches("<polyline").count(), 3);
    assert_eq!(svg.matches("class=\"cell\"").count(), 9);
    let (report, curves) = regressed();
    let svg = draw("prices", &report, &curves).unwrap();
    assert_eq!(svg.matches("<circle").count(), 800);
    assert_eq!(svg.matches("<polyline").count(), 2);
    assert!(svg.contains("rows not seen: 15800<") && svg.contains("rows learned from: 9800<"));
    let number = |dot: &str, name: &str| -> f64 {
        dot.split(name).nth(1).unwrap().split('"').nth(1).unwrap().parse().unwrap()
    };
    for dot in svg.lines().filter(|line| line.starts_with("<circle")) {
        let (x, y) = (number(dot, "cx="), number(dot, "cy="));
        let inside = |frame: Frame| {
            (frame.x..=frame.x + frame.width).contains(&x) && (frame.y..=frame.y + frame.height).contains(&y)
        };
        assert!(inside(LEFT) || inside(RIGHT), "{dot}");
    }
}

#[test]
fn strange_evaluations_are_drawn_or_are_none() {
    assert_eq!(draw("nothing", &Report::default(), &Curves::default()), None);
    for points in [vec![[5.0, 5.0]], vec![[0.0, 0.0], [1e300, -1e300]], vec![[1e9, 1e9 + 1.0]]] {
        check(
            &draw("points", &Report::default(), &Curves { predicted: points, ..Curves::default() }).unwrap(),
        );
    }
    let many = |classes: usize| {
        let labels: Vec<String> = (0..classes).map(|c| format!("class {c}")).collect();
        let curve = |class: &String| RocCurve {
            class: class.clone(),
            auc: 0.5,
            points: vec![[0.0, 0.0], [1.0, 1.0]],
        };
        let roc = labels.iter().map(curve).collect();
        let matrix = vec![vec![123_456; classes]; classes];
        let report = Report {
            confusion: Some(Confusion { labels, matrix }),
            values: BTreeMap::new(),
            ..Report::default()
        };
        draw("many", &report, &Curves { roc, ..Curves::default() }).unwrap()
    };
    check(&many(12));
    check(&many(32));
    assert!(many(12).contains("and 4 that are told apart better") && many(12).contains(">123k<"));
}

#[test]
fn a_study_is_drawn_with_its_parameters_and_what_matters() {
    let trial = |number: u32| {
        let value = f64::from(number + 1);
        let mut params = vec![("rate", Value::Float(0.001 * value * value)), ("same", Value::Int(3))];
        if !number.is_multiple_of(3) {
            params.push(("rule", Value::Text(["<log>", "sqrt"][number as usize % 2].into())));
        }
        Trial {
            number,
            space: 0,
            kind: "kind".into(),
            params: Params(params.into_iter().map(|(name, value)| (name.into(), value)).collect()),
            score: (number != 7).then_some(1.0 / value),
            metrics: BTreeMap::new(),
            rounds: 1,
            of_rounds: 1,
            error: None,
        }
    };
    let trials: Vec<Trial> = (0..20).map(trial).collect();
    let shares = [("rate".to_string(), 0.9), ("rule".to_string(), 0.05)].into();
    let svg = draw_study("a & b", "rmse", &trials, &shares).unwrap();
    check(&svg);
    assert!(!svg.contains(">same<"), "what is the same everywhere says nothing");
    assert!(svg.contains(">rate<") && svg.contains("&lt;log&gt;") && svg.contains("90 %"));
    assert_eq!(svg.matches("curve c1").count(), 2, "a tenth of 19 stands out");
    assert_eq!(draw_study("none", "rmse", &trials[7..9], &BTreeMap::new()), None);
}
