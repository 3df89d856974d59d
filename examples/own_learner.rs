//! A kind of model of one's own: the nearest centroid. Each unit sums the rows of some chunks for each class; the fold
//! adds the sums in the order of the units, so the model is the same on any cluster: `cargo run --release --example own_learner`.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use dml::{
    Cluster, Learner, Registry,
    cluster::Options,
    compute::{Encoding, Fit, Folded, Kind, Predict, Scores, Shape, WorkError},
    core::{Params, Plan, Task},
    view::{NewModel, NewTraining},
};
use ndarray::{Array1, Array2, Axis};
use serde::{Deserialize, Serialize};

struct NearestCentroid;

/// For each class how many rows it has, and their sum.
type Centroids = Vec<(f64, Vec<f64>)>;

/// The model: a class is as likely as its centroid is near.
#[derive(Serialize, Deserialize)]
struct Nearest(Centroids);

type Done<T> = Result<T, WorkError>;

fn add(mut total: Centroids, part: Centroids) -> Centroids {
    for ((count, sum), (more, values)) in total.iter_mut().zip(part) {
        *count += more;
        sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
    total
}

impl Learner for NearestCentroid {
    type State = ();
    type Partial = Centroids;
    type Model = Nearest;

    fn kind(&self) -> Kind {
        Kind {
            name: "nearest_centroid",
            about: "the class whose mean is nearest",
            tasks: vec![Task::Classification],
            params: Vec::new(),
            default: false,
            parallel: true,
            deterministic: true,
            exportable: vec!["native", "json"],
            encoding: Encoding::Dense,
        }
    }

    fn plan(&self, _: &Params, shape: &Shape) -> Plan {
        Plan::over_chunks(1, shape.rows, shape.chunks, 100_000)
    }

    fn start(&self, _: &Fit) -> Done<()> {
        Ok(())
    }

    fn unit(&self, fit: &Fit, _: u32, index: u32, (): &()) -> Done<Centroids> {
        let mut sums = vec![(0.0, vec![0.0; fit.rows.width()]); fit.classes];
        for chunk in fit.plan.share(index, fit.rows.chunks()) {
            let block = fit.rows.block(chunk)?;
            for (row, class) in block.x.axis_iter(Axis(0)).zip(&block.y) {
                let (count, sum) = &mut sums[*class as usize];
                *count += 1.0;
                sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
        }
        Ok(sums)
    }

    fn fold(&self, _: &Fit, _: u32, (): (), parts: Vec<Centroids>) -> Done<Folded<(), Nearest>> {
        Ok(Folded::Done(Nearest(parts.into_iter().reduce(add).unwrap_or_default())))
    }
}

impl Predict for Nearest {
    fn predict(&self, x: &Array2<f64>) -> Scores {
        let mut scores = Array2::zeros((x.nrows(), self.0.len()));
        for (row, mut scores) in x.axis_iter(Axis(0)).zip(scores.axis_iter_mut(Axis(0))) {
            let nearness = self.0.iter().map(|(count, sum)| {
                let distance: f64 = row.iter().zip(sum).map(|(v, s)| (v - s / count.max(1.0)).powi(2)).sum();
                1.0 / (1e-9 + distance)
            });
            scores.assign(&nearness.collect::<Array1<f64>>());
            scores /= scores.sum();
        }
        Scores::Probabilities(scores)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut registry = Registry::default();
    registry.add(NearestCentroid)?;
    let client = Cluster::start(Options { registry, ..Options::default() })?.client();
    let table = std::fs::read("data/penguins.csv")?;
    client.upload("penguins", "text/csv", futures_util::stream::iter([Ok(table.into())])).await?;
    let models = vec![NewModel { kind: "nearest_centroid".into(), ..NewModel::default() }];
    let training = client.train(&NewTraining { models, ..NewTraining::new("penguins", "species") }).await?;
    let training = client.watch(&training.id.to_string(), |_| ()).await?;
    println!("{:#}", training.models[0].metrics.as_ref().ok_or("it was not evaluated")?["accuracy"]);
    Ok(())
}
