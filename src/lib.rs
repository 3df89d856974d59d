//! DML is a machine-learning cluster with no head. People upload a table, train many models on it with whatever machines
//! are there, predict, and take the models away; finished work is not lost when nodes die, and results are the same
//! bytes on any number of nodes.
//!
//! ```
//! use dml::{Client, Cluster, cluster::Options, view::{NewModel, NewTraining}};
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = Cluster::start(Options::default())?;
//! let client: Client = cluster.client();
//!
//! let table = "x,y\n".to_string() + &(0..200).map(|x| format!("{x},{}\n", 3 * x + 1)).collect::<String>();
//! let pieces = futures_util::stream::iter([Ok(table.into())]);
//! client.upload("line", "text/csv", pieces).await?;
//!
//! let models = vec![NewModel { kind: "linear".into(), ..NewModel::default() }];
//! let training = client.train(&NewTraining { models, ..NewTraining::new("line", "y") }).await?;
//! let training = client.watch(&training.id.to_string(), |_| ()).await?;
//! let best = training.best.expect("the model is finished").to_string();
//!
//! let csv = client.predict_csv(&best, "x\n1000\n".into()).await?;
//! let y: f64 = String::from_utf8_lossy(&csv).trim().trim_start_matches("prediction\n").parse()?;
//! assert!((y - 3001.0).abs() < 0.01);
//! cluster.stop().await;
//! # Ok(()) }
//! ```
//!
//! - [`Cluster`] is a cluster in this process. [`Db`] and [`Worker`] are its parts, for clusters of many processes: each
//!   is an axum `Router` and a future, so it can be served as it is or nested in a larger app.
//! - [`Client`] speaks to a cluster, here or on the network; [`view`] has what it answers.
//! - [`Learner`] is what a kind of model is: write your own and put it into a [`Registry`].
//! - [`core`], [`store`], [`compute`] and [`net`] are the rooms behind this front page.

pub use dml_compute as compute;
pub use dml_core as core;
pub use dml_net as net;
pub use dml_store as store;

pub use dml_compute::{Learner, Model, Registry};
pub use dml_core::Digest;
pub use dml_net::{Client, ClientError, Cluster, Db, Peer, Problem, Worker, cluster, view};
