//! The bytes of models of trees on small tables: the same on any number of threads, with and without a cache, today and
//! tomorrow.

use super::*;

/// Enough for these tables.
const CACHE: usize = 64 << 20;

/// The learner's part of a model, fitted by an engine with so much cache on so many threads.
fn learned(trial: &mut Trial, kind: &str, cache_bytes: usize, threads: usize) -> Digest {
    let split = Split::Holdout { seed: 3, fraction: 0.2 };
    let fit = trial.fit(kind, split);
    let engine = Engine::new(Registry::default()).with_cache_bytes(cache_bytes);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let model = pool.install(|| engine.run(&fit, &trial.inputs)).unwrap();
    Digest::of(&Model::from_bytes(&model).unwrap().learner)
}

#[test]
fn models_of_trees_are_golden() {
    use Task::{Classification, Regression};
    let tables = [
        (PENGUINS, Classification, "species"),
        (PENGUINS, Classification, "sex"),
        (HOUSES, Regression, "price"),
    ];
    let kinds = ["decision_tree", "extra_trees", "gradient_boosting", "random_forest"];
    let registry = Registry::default();
    let of_trees = registry.kinds().into_iter().filter(|kind| kind.encoding == crate::Encoding::Codes);
    let mut of_trees: Vec<&str> = of_trees.map(|kind| kind.name).collect();
    of_trees.sort_unstable();
    assert_eq!(of_trees, kinds, "every kind has its golden bytes: the others in learners/golden.rs");
    let mut found = Vec::new();
    for (csv, task, target) in tables {
        let mut trial = Trial::new(csv, task, target);
        for kind in kinds {
            let digest = learned(&mut trial, kind, CACHE, 1);
            for (cache_bytes, threads) in [(0, 1), (CACHE, 4), (0, 4), (1 << 14, 3)] {
                let other = learned(&mut trial, kind, cache_bytes, threads);
                assert_eq!(digest, other, "{kind} of {target}, {cache_bytes} bytes, {threads} threads");
            }
            found.push(digest.to_string()[..16].to_string());
        }
    }
    assert_eq!(found, GOLDEN, "a change here changes what every training gives");
}

/// Boosting over shards of the rows gives the trees of one unit: on machines that remember all, nothing, or whatever
/// they happen to have done before.
#[test]
fn shards_of_rows_leave_no_trace_in_boosting() {
    use Task::{Classification, Regression};
    let tables = [
        (PENGUINS, Classification, "species"),
        (PENGUINS, Classification, "sex"),
        (HOUSES, Regression, "price"),
    ];
    let digest = |bytes: &[u8]| Digest::of(&Model::from_bytes(bytes).unwrap().learner);
    for (csv, task, target) in tables {
        let mut trial = Trial::new(csv, task, target);
        let mut alone = trial.fit("gradient_boosting", Split::Holdout { seed: 3, fraction: 0.2 });
        if let Work::Fit { params, .. } = &mut alone.work {
            params.0.insert("n_estimators".into(), dml_core::Value::Int(7));
            params.0.insert("subsample".into(), dml_core::Value::Float(0.8));
            params.0.insert("early_stopping".into(), dml_core::Value::Bool(true));
        }
        let expected = digest(&trial.engine.run(&alone, &trial.inputs).unwrap());
        for (units, cache_bytes) in [(2, CACHE), (3, 1 << 14), (7, CACHE)] {
            let job = JobSpec { plan: Plan { rounds: 7 * 31, units, fold: true }, ..alone.clone() };
            let engine = Engine::new(Registry::default()).with_cache_bytes(cache_bytes);
            assert_eq!(
                digest(&engine.run(&job, &trial.inputs).unwrap()),
                expected,
                "{units} shards of {target}"
            );
            let engines =
                [0, CACHE, CACHE].map(|bytes| Engine::new(Registry::default()).with_cache_bytes(bytes));
            let any =
                |round, unit| &engines[rng::below(u64::from(units), u64::from(round * 9 + unit), 3) as usize];
            assert_eq!(digest(&scattered_over(&job, &trial.inputs, any)), expected);
        }
    }
}

const GOLDEN: [&str; 12] = [
    "9eb7e1cf4d7309f7",
    "027b023a396c23de",
    "26b1e51c542d5d6b",
    "6b9200b592786a67",
    "4984056804bb7f55",
    "d469a3cb263a9b76",
    "7e9de29d84a58721",
    "93b8bd34f3ae6a93",
    "740a9350df477184",
    "5707565320559c9e",
    "7caa8a3b0d7329c9",
    "4f7894743abdae90",
];
