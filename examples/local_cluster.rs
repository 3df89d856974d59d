//! A whole cluster in this process: uploads a table, trains two models on it, predicts.
//!
//! `cargo run --release --example local_cluster`
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use dml::{
    Cluster,
    cluster::Options,
    view::{NewModel, NewTraining},
};
use futures_util::stream;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::start(Options { workers: 2, ..Options::default() })?;
    let client = cluster.client();

    let table = std::fs::read("data/houses.csv")?;
    let dataset = client.upload("houses", "text/csv", stream::iter([Ok(table.into())])).await?;
    println!("{} rows, {} columns, dataset {}", dataset.rows, dataset.columns.len(), dataset.id.short());

    let model = |kind: &str| NewModel { kind: kind.into(), ..NewModel::default() };
    let models = vec![model("ridge"), model("gradient_boosting")];
    let training = NewTraining { models, ..NewTraining::new("houses", "price") };
    let training = client.train(&training).await?;
    let training =
        client.watch(&training.id.to_string(), |now| println!("{:3.0} %", now.progress * 100.0)).await?;
    for model in &training.models {
        println!(
            "{:20} R² {}",
            model.name,
            model.metrics.as_ref().map_or("-".into(), |m| m["r2"].to_string())
        );
    }

    let best = training.best.ok_or("no model was finished")?.to_string();
    let house = "lotsize,bedrooms,bathrooms,stories,driveway,recreation,fullbase,gasheat,aircon,garage,prefer\n\
                 5850,3,1,2,yes,no,yes,no,no,1,no\n";
    print!("{}", String::from_utf8_lossy(&client.predict_csv(&best, house.into()).await?));
    cluster.stop().await;
    Ok(())
}
