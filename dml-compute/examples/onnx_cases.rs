//! Trains every kind that can be exported on several tables, and writes what another program needs to check its ONNX file:
//! `cargo run -p dml-compute --example onnx_cases -- OUT [DIAMONDS.csv]`.
//!
//! Each directory below OUT has `model.onnx`, `inputs.csv` (1,000 rows: those of the table, then the same with blanks,
//! unseen categories and numbers far out), and `expected.csv`, which has what the model itself says of them.

use std::{
    collections::BTreeSet,
    error::Error,
    fs,
    io::Cursor,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::RecordBatch;
use dml_compute::{
    Domain, Engine, Kind, MemoryInputs, Model, Registry, WorkError,
    engine::{check_problem, shape},
    table,
};
use dml_core::{Dataset, Digest, JobSpec, Params, Split, Task, Value, Work, rng};

/// How many rows are predicted.
const ROWS: usize = 1000;
/// How many rows of a great table are learned from.
const FIRST: usize = 3000;

type Done<T> = Result<T, Box<dyn Error>>;

fn main() -> Done<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let out = arguments.next().ok_or("say where: onnx_cases OUT [DIAMONDS.csv]")?;
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data");
    let penguins = fs::read(data.join("penguins.csv"))?;
    let houses = fs::read(data.join("houses.csv"))?;
    use Task::{Classification, Regression};
    let mut tables = vec![
        ("penguins", penguins, vec![("species", Classification), ("body_mass_g", Regression)]),
        ("houses", houses, vec![("price", Regression), ("prefer", Classification)]),
        ("odd", odd(), vec![("y", Regression), ("label", Classification)]),
    ];
    if let Some(path) = arguments.next() {
        let diamonds = first_lines(&fs::read(path)?, FIRST + 1);
        tables.push(("diamonds", diamonds, vec![("price", Regression), ("cut", Classification)]));
    }
    let engine = Engine::new(Registry::default());
    let mut covered = BTreeSet::new();
    for (table, csv, targets) in &tables {
        for (target, task) in targets {
            let trial = Trial::new(&engine, csv, *task, target)?;
            for kind in engine.registry().kinds() {
                if !kind.tasks.contains(task) || !kind.exportable.contains(&"onnx") {
                    continue;
                }
                for (name, params) in settings(&kind, *table == "penguins") {
                    let place = out.join(format!("{table}-{target}-{name}"));
                    match trial.write(kind.name, &params, &place) {
                        Ok(()) => covered.insert(kind.name),
                        // Not every kind takes every table.
                        Err(error) => match error.downcast_ref() {
                            Some(WorkError::Input(why)) => {
                                say(&format!("{table}-{target}-{name} is left out: {why}"));
                                false
                            }
                            _ => return Err(format!("{}: {error}", place.display()).into()),
                        },
                    };
                }
            }
        }
    }
    let kinds = engine.registry().kinds();
    let missed =
        kinds.iter().filter(|kind| kind.exportable.contains(&"onnx") && !covered.contains(kind.name));
    let missed: Vec<_> = missed.map(|kind| kind.name).collect();
    if missed.is_empty() { Ok(()) } else { Err(format!("no table was for {}", missed.join(", ")).into()) }
}

#[expect(clippy::print_stdout, reason = "a program says what it does")]
fn say(text: &str) {
    println!("{text}");
}

/// The parameters to try: the defaults, and if `all` every switch and every word in the place of its default.
fn settings(kind: &Kind, all: bool) -> Vec<(String, Params)> {
    let mut settings = vec![(kind.name.to_string(), Params::default())];
    for param in kind.params.iter().filter(|_| all) {
        let values: Vec<Value> = match &param.domain {
            Domain::Bool { default } => vec![Value::Bool(!default)],
            Domain::Choice { default, choices } => {
                let others = choices.iter().filter(|choice| *choice != default);
                others.map(|choice| Value::Text((*choice).into())).collect()
            }
            Domain::Float { .. } | Domain::Int { .. } => Vec::new(),
        };
        for value in values {
            let name = format!("{}-{}-{value}", kind.name, param.name);
            settings.push((name, Params([(param.name.to_string(), value)].into())));
        }
    }
    settings
}

/// A table and what is to be learned from it.
struct Trial<'a> {
    engine: &'a Engine,
    inputs: MemoryInputs,
    dataset: Arc<Dataset>,
    problem: dml_core::job::Problem,
    prepared: Digest,
    rows: Vec<serde_json::Map<String, serde_json::Value>>,
}

impl<'a> Trial<'a> {
    fn new(engine: &'a Engine, csv: &[u8], task: Task, target: &str) -> Done<Self> {
        let mut inputs = MemoryInputs::default();
        let (chunks, columns) = table::read_table(Cursor::new(csv), table::Limits::default())?;
        let [batch] = &chunks[..] else { return Err("the table has no rows, or very many".into()) };
        let dataset = inputs.put_table(&chunks, columns);
        let problem = check_problem(&dataset, task, target, None)?;
        let work = Work::Prepare { problem: problem.clone(), split: Split::All, seed: 1 };
        let job = JobSpec { parent: None, role: "prepare".into(), work, plan: engine.plan_prepare(&dataset) };
        let prepared = inputs.put(engine.run(&job, &inputs)?);
        let mut rows = altered(table::to_json_rows(batch));
        rows.iter_mut().for_each(|row| row.retain(|name, _| problem.features.contains(name)));
        Ok(Self { engine, inputs, dataset, problem, prepared, rows })
    }

    fn write(&self, kind: &str, params: &Params, place: &Path) -> Done<()> {
        let registry = self.engine.registry();
        let params = registry.check(kind, self.problem.task, params)?;
        let plan = self.engine.plan_fit(kind, &params, &shape(&self.dataset, &self.problem))?;
        let (problem, prepared) = (self.problem.clone(), self.prepared);
        let work =
            Work::Fit { problem, split: Split::All, prepared, kind: kind.into(), params, seed: 5, bag: None };
        let job = JobSpec { parent: None, role: "fit".into(), work, plan };
        let bytes = self.engine.run(&job, &self.inputs)?;
        let model = Model::from_bytes(&bytes)?;
        let inputs = table::from_json_rows(&self.rows, &model.inputs())?;
        fs::create_dir_all(place)?;
        fs::write(place.join("model.onnx"), model.to_onnx(registry, &Digest::of(&bytes).to_string())?)?;
        fs::write(place.join("inputs.csv"), csv(&inputs))?;
        fs::write(place.join("expected.csv"), csv(&model.predict(registry, &inputs)?))?;
        Ok(())
    }
}

fn csv(batch: &RecordBatch) -> Vec<u8> {
    let mut text = Vec::new();
    table::write_csv(batch, true, &mut text);
    text
}

fn first_lines(text: &[u8], count: usize) -> Vec<u8> {
    text.split_inclusive(|byte| *byte == b'\n').take(count).flatten().copied().collect()
}

/// The rows again and again; after the first time, one value in ten is blank, unseen or far out.
fn altered<V: Into<serde_json::Value>>(rows: Vec<V>) -> Vec<serde_json::Map<String, serde_json::Value>> {
    let rows: Vec<_> = rows.into_iter().filter_map(|row| row.into().as_object().cloned()).collect();
    let alter = |i: usize| {
        let mut row = rows[i % rows.len()].clone();
        if i < rows.len() {
            return row;
        }
        for (j, value) in row.values_mut().enumerate() {
            match rng::below(rng::draw(9, i as u64), j as u64, 20) {
                0 => *value = serde_json::Value::Null,
                1 => match value.as_f64() {
                    Some(number) => *value = (number.trunc() * 100.0 - 7.0).into(),
                    None if value.is_string() && !is_date(value) => *value = "never seen: \"é\", 東".into(),
                    None => {}
                },
                _ => {}
            }
        }
        row
    };
    (0..ROWS).map(alter).collect()
}

fn is_date(value: &serde_json::Value) -> bool {
    value.as_str().is_some_and(|text| text.starts_with("20"))
}

/// A table with every type, names that other names could clash with, blanks, and more categories than have a column or
/// a code of their own.
fn odd() -> Vec<u8> {
    let mut text = String::from(
        "\"größe (m²), \"\"netto\"\"\",prediction,v1,label_,probabilities,is new,seen,at,town,same,id,Concat_0,y,label\n",
    );
    let draw = |row: u64, column: u64, n: u64| rng::below(rng::draw(4, row), column, n);
    for row in 0..700 {
        let blank =
            |column: u64, value: String| if draw(row, 50 + column, 15) == 0 { String::new() } else { value };
        let size = draw(row, 0, 1000) as f64 / 8.0;
        let town = draw(row, 4, 300).min(draw(row, 5, 300));
        let new = draw(row, 1, 2) == 1;
        let (day, month) = (1 + draw(row, 2, 28), 1 + draw(row, 3, 12));
        let y = size + town as f64 + if new { 40.0 } else { 0.0 } + month as f64;
        let cells = [
            blank(0, size.to_string()),
            blank(1, format!("{}e3", draw(row, 6, 100))),
            blank(2, draw(row, 7, 3).to_string()),
            blank(3, ["a b", "A b", "\"c,\"\"d\"\"\""][draw(row, 8, 3) as usize].into()),
            blank(4, draw(row, 9, 2).to_string()),
            blank(5, new.to_string()),
            blank(6, format!("20{:02}-{month:02}-{day:02}", draw(row, 10, 25))),
            blank(7, format!("2024-{month:02}-{day:02}T0{}:15:00.250", draw(row, 11, 9))),
            blank(8, format!("town {town}")),
            "constant".into(),
            format!("row {row}"),
            blank(9, (draw(row, 12, 50) as f64 * -1e-6).to_string()),
            y.to_string(),
            ["10", "9", "-1"][(y / 150.0) as usize % 3].into(),
        ];
        text.push_str(&format!("{}\n", cells.join(",")));
    }
    text.into_bytes()
}
