//! `dml up`: a cluster in this process that serves until it is told to end.

use std::{path::PathBuf, sync::Arc};

use dml_net::{cluster, identity::Party, logs::Logs, serve::Server};
use program::{
    identity,
    listen::{self, ListenError},
};
use serde_json::json;

use crate::{
    args::Up,
    connect::{self, Place},
    console::{Console, counted},
    failure::Failure,
};

pub(crate) async fn run(
    console: &Console,
    place: &Place,
    options: Up,
    logs: Arc<Logs>,
) -> Result<(), Failure> {
    if !place.is_embedded() {
        return Err(Failure::usage("`up` serves a cluster of its own: leave --cluster out"));
    }
    let listener = listen::listen(options.listen, place.identity.is_some(), options.insecure).await.map_err(
        |error| match error {
            ListenError::Open(_) | ListenError::Nowhere(_) | ListenError::Elsewhere(_) => {
                Failure::usage(error.to_string())
            }
            ListenError::Refused(..) => {
                Failure::failed(error.to_string()).hint("choose another with --listen")
            }
        },
    )?;
    let address = listener.local_addr().map_err(|error| Failure::failed(error.to_string()))?;
    let own = |file: &PathBuf| identity::of_node(&identity::read(file)?, Party::worker(), address);
    let tls = place.identity.as_ref().map(own).transpose()?.map(|own| own.accept()).transpose()?;
    let workers = usize::from(options.workers);
    let cores = std::thread::available_parallelism().map_or(1, Into::into);
    let slots = options.slots.map_or((cores / workers).max(1), usize::from);
    let cluster = connect::start(cluster::Options {
        data: Some(place.data.clone()),
        dbs: options.dbs.into(),
        workers,
        slots,
        guarded: tls.is_some(),
        logs: Some(logs),
        ..Default::default()
    })?;
    let url = format!("{}://{address}", if tls.is_some() { "https" } else { "http" });
    let server = Server { origins: options.origins.allow_origin, tls, ..Default::default() };
    console.show(
        &json!({ "url": url, "data": place.data, "dbs": options.dbs, "workers": workers, "slots": slots }),
        || {
            let data = place.data.display();
            format!(
                "serving {url} with {} and {}: open it in a browser; the data is in {data}; ctrl-c ends it\n\n{}",
                counted(options.dbs.into(), "db node"),
                counted(workers as u64, "worker"),
                examples(&url)
            )
        },
    )?;
    let ended = tokio::select! {
        () = server.serve(listener, cluster.workers()[0].router(), listen::end()) => Ok(()),
        error = cluster.failed() => Err(Failure::failed(error.to_string())),
    };
    cluster.stop().await;
    ended
}

fn examples(url: &str) -> String {
    format!(
        "In another terminal:
  dml --cluster {url} train penguins.csv --target species
or, from any language:
  curl {url}/v1/datasets?name=penguins -H 'content-type: text/csv' --data-binary @penguins.csv
  curl {url}/v1/trainings -H 'content-type: application/json' -d '{{\"dataset\": \"penguins\", \"target\": \"species\"}}'
  curl {url}/v1/trainings/penguins-species
  curl {url}/v1/models/penguins-species/predict -H 'content-type: text/csv' -H 'accept: text/csv' --data-binary @penguins.csv"
    )
}
