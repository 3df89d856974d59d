//! DML is a machine-learning cluster with no head. People upload a table, train many models on it with whatever machines
//! are there, predict, and take the models away; finished work is not lost when nodes die, and results are the same
//! bytes on any number of nodes.
//!
//! # Five minutes
//!
//! A cluster in this process, in memory: one db node that stores and hands out work, one worker that serves and computes.
//! Upload a table, train a model, predict. (`data: Some("some/directory".into())` keeps it all on disk.)
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
//! # Whatever moves can be watched
//!
//! An upload is a stream of yours, so it tells how far it is; a training and a batch prediction call you with each state.
//! Models have parameters as in scikit-learn, metrics with intervals, and come as files.
//!
//! ```
//! # use dml::{Cluster, Model, Registry, cluster::Options, view::{NewModel, NewPrediction, NewTraining}};
//! # use futures_util::{StreamExt, stream};
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let client = Cluster::start(Options::default())?.client();
//! # let table = "a,b,kind\n".to_string()
//! #     + &(0..300).map(|n| format!("{},{},{}\n", n % 17, n % 5, if n % 17 > 8 { "big" } else { "small" })).collect::<String>();
//! # let pieces: Vec<Vec<u8>> = table.as_bytes().chunks(1000).map(Into::into).collect();
//! let mut sent = 0;
//! let pieces = stream::iter(pieces).inspect(move |piece| {
//!     sent += piece.len();
//!     // move a bar to `sent`
//! });
//! client.upload("things", "text/csv", pieces.map(|piece| Ok(piece.into()))).await?;
//!
//! let forest = NewModel {
//!     kind: "random_forest".into(),
//!     params: serde_json::from_str(r#"{"n_estimators": 20, "max_depth": 6}"#)?,
//! };
//! let training = NewTraining { models: vec![forest], seed: Some(7), ..NewTraining::new("things", "kind") };
//! let training = client.train(&training).await?;
//! let mut seen = Vec::new();
//! let training = client.watch(&training.id.to_string(), |now| seen.push(now.progress)).await?;
//! assert!(seen.is_sorted() && seen.last() == Some(&1.0));
//! assert!(training.models[0].metrics.as_ref().expect("it was judged")["accuracy"].as_f64() > Some(0.95));
//!
//! let all = NewPrediction { model: "things-kind".into(), dataset: "things".into(), name: Some("all".into()) };
//! client.predict(&all).await?;
//! let prediction = client.watch_prediction("all", |now| assert!(now.units_done <= now.units)).await?;
//! assert_eq!(prediction.units_done, prediction.units);
//!
//! // In DML's own format a model predicts without any cluster; "onnx" is for other programs.
//! let model = Model::from_bytes(&client.download("things-kind", "native").await?)?;
//! assert_eq!(model.classes, ["big", "small"]);
//! # Ok(()) }
//! ```
//!
//! # In a web app of one's own
//!
//! A worker's API and console are an axum `Router`; computing is a future. Db nodes are here, or wherever [`net::link::Link`]
//! finds them.
//!
//! ```
//! # use axum::{Router, body::Body, routing::get};
//! # use dml::{Db, Peer, Registry, Worker, compute::Engine, net::{link::Link, worker::Options}};
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let db = Db::in_memory()?;
//! let link = Link::new([Peer::router(db.router())]);
//! let worker = Worker::new(link, Engine::new(Registry::default()), Options::default());
//! let app = Router::new().route("/", get(async || "my own app")).nest("/ml", worker.router());
//! tokio::spawn(async move { worker.run().await });
//! # let request = hyper::Request::get("/ml/readyz").body(Body::empty())?;
//! # assert_eq!(Peer::router(app).call(request).await?.status(), 200);
//! # Ok(()) }
//! ```
//!
//! # A learner of one's own
//!
//! A [`Learner`] says how its fit is cut into rounds of units, and what a unit and the end of a round compute; its model
//! says how it predicts. This one predicts the mean of the target, whatever it is shown; any number of workers can share it.
//!
//! ```
//! use dml::{
//!     Cluster, Learner, Registry,
//!     cluster::Options,
//!     compute::{Encoding, Fit, Folded, Kind, Predict, Scores, Shape, WorkError},
//!     core::{Params, Plan, Task},
//! };
//! use ndarray::{Array1, Array2};
//! use serde::{Deserialize, Serialize};
//!
//! struct Mean;
//!
//! #[derive(Serialize, Deserialize)]
//! struct Constant(f64);
//!
//! impl Learner for Mean {
//!     type State = ();
//!     type Partial = (f64, f64);
//!     type Model = Constant;
//!
//!     fn kind(&self) -> Kind {
//!         Kind {
//!             name: "mean",
//!             about: "the mean of the target",
//!             tasks: vec![Task::Regression],
//!             params: Vec::new(),
//!             default: false,
//!             parallel: true,
//!             deterministic: true,
//!             exportable: vec!["native", "json"],
//!             encoding: Encoding::Dense,
//!         }
//!     }
//!
//!     fn plan(&self, _: &Params, shape: &Shape) -> Plan {
//!         Plan::over_chunks(1, shape.rows, shape.chunks, 100_000)
//!     }
//!
//!     fn start(&self, _: &Fit) -> Result<(), WorkError> {
//!         Ok(())
//!     }
//!
//!     fn unit(&self, fit: &Fit, _round: u32, index: u32, (): &()) -> Result<(f64, f64), WorkError> {
//!         let (mut count, mut sum) = (0.0, 0.0);
//!         for chunk in fit.plan.share(index, fit.rows.chunks()) {
//!             let block = fit.rows.block(chunk)?;
//!             count += block.y.len() as f64;
//!             sum += block.y.sum();
//!         }
//!         Ok((count, sum))
//!     }
//!
//!     fn fold(&self, _: &Fit, _round: u32, (): (), parts: Vec<(f64, f64)>) -> Result<Folded<(), Constant>, WorkError> {
//!         let (count, sum) = parts.iter().fold((0.0, 0.0), |all, part| (all.0 + part.0, all.1 + part.1));
//!         Ok(Folded::Done(Constant(sum / f64::max(count, 1.0))))
//!     }
//! }
//!
//! impl Predict for Constant {
//!     fn predict(&self, x: &Array2<f64>) -> Scores {
//!         Scores::Values(Array1::from_elem(x.nrows(), self.0))
//!     }
//! }
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut registry = Registry::default();
//! registry.add(Mean)?;
//! let cluster = Cluster::start(Options { registry, ..Options::default() })?;
//! # let client = cluster.client();
//! # let table = "x,y\n".to_string() + &(0..100).map(|x| format!("{x},{}\n", x % 10)).collect::<String>();
//! # client.upload("t", "text/csv", futures_util::stream::iter([Ok(table.into())])).await?;
//! # let models = vec![dml::view::NewModel { kind: "mean".into(), ..Default::default() }];
//! # let training = client.train(&dml::view::NewTraining { models, ..dml::view::NewTraining::new("t", "y") }).await?;
//! # let training = client.watch(&training.id.to_string(), |_| ()).await?;
//! # assert!(training.models[0].metrics.as_ref().expect("it was judged")["r2"].as_f64().expect("a number") <= 0.0);
//! # cluster.stop().await;
//! # Ok(()) }
//! ```
//!
//! # What is where
//!
//! - [`Cluster`] is a cluster in this process. [`Db`] and [`Worker`] are its parts, for clusters of many processes: each
//!   is an axum `Router` and a future, so it can be served as it is or nested in a larger app.
//! - [`Client`] speaks to a cluster, here or on the network; [`view`] has what it answers.
//! - [`Learner`] is what a kind of model is: write your own and put it into a [`Registry`].
//! - [`net::logs`] keeps the last lines of the log for whoever looks at a worker from outside.
//! - [`core`], [`store`], [`compute`] and [`net`] are the rooms behind this front page.

pub use dml_compute as compute;
pub use dml_core as core;
pub use dml_net as net;
pub use dml_store as store;

pub use dml_compute::{Learner, Model, Registry};
pub use dml_core::Digest;
pub use dml_net::{Client, ClientError, Cluster, Db, Peer, Problem, Worker, cluster, view};
