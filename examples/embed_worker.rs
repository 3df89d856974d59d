//! A worker inside somebody's own axum app: DML's API lives under `/ml`, beside the app's own routes.
//!
//! `cargo run --release --example embed_worker` serves on a free port, asks itself a question and ends.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use axum::{Router, body::Body, routing::get};
use dml::{
    Db, Peer, Registry, Worker,
    compute::Engine,
    net::{link::Link, serve::serve, worker::Options},
};
use http_body_util::BodyExt;
use hyper::Request;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // In production the db nodes are elsewhere: Link::new([Peer::http("http://db:7301")?]).
    let db = Db::in_memory()?;
    let worker = Worker::new(
        Link::new([Peer::router(db.router())]),
        Engine::new(Registry::default()),
        Options::default(),
    );
    let computing = tokio::spawn({
        let worker = worker.clone();
        async move { worker.run().await }
    });

    let app = Router::new().route("/", get(async || "my own app")).nest("/ml", worker.router());

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    println!("serving on http://{address}, the worker below http://{address}/ml");
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(serve(listener, app, async { ended.await.unwrap_or_default() }));

    let client = Peer::http(&address.to_string())?;
    for path in ["/", "/ml/healthz", "/ml/v1/nodes"] {
        let answer = client.call(Request::get(path).body(Body::empty())?).await?;
        let text = answer.into_body().collect().await?.to_bytes();
        println!("{path:14} {}", String::from_utf8_lossy(&text).trim());
    }

    end.send(()).map_err(|()| "the server has ended already")?;
    serving.await?;
    worker.stop(std::time::Duration::from_secs(1)).await;
    computing.await?;
    Ok(())
}
