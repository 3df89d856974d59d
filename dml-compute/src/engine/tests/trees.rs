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
    let model = pool.install(|| engine.run(&fit, &trial.shelf)).unwrap();
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

const GOLDEN: [&str; 12] = [
    "9eb7e1cf4d7309f7",
    "027b023a396c23de",
    "a4804e24b68615d0",
    "6b9200b592786a67",
    "4984056804bb7f55",
    "d469a3cb263a9b76",
    "3702af1e70ab6e0a",
    "93b8bd34f3ae6a93",
    "740a9350df477184",
    "5707565320559c9e",
    "f98045dbd91d9fa6",
    "4f7894743abdae90",
];
