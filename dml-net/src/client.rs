//! The users' API, typed: what the console application and embedding programs call.

use std::time::Duration;

pub use axum::body::Body;
use axum::body::Bytes;
use dml_core::{record::Kind, training::State};
use futures_util::Stream;
use http_body_util::BodyExt;
use hyper::{
    Method, Request, Response, StatusCode,
    header::{self, HeaderValue},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    identity::{Secret, Trust},
    logs::{Level, Line},
    peer::{Peer, PeerError},
    problem::Problem,
    view::{
        DatasetView, EnsemblePredictions, EnsembleView, ModelView, NewFit, NewPrediction, NewRevocation,
        NewStudy, NewToken, NewTraining, NodeView, Page, PredictedRows, PredictionView, RevocationView,
        RoutingView, RowsToPredict, RowsView, StudyView, TokenView, TrainingView, TrialsView,
    },
};

/// Why a call failed, split by what the caller can do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The cluster refused, and says why.
    #[error("{0}")]
    Problem(#[from] Problem),
    /// No node answers.
    #[error("no cluster answers: {0}")]
    NoAnswer(#[from] PeerError),
    /// The answer broke off, or is not what this version understands.
    #[error("the answer cannot be used: {0}")]
    Garbled(String),
}

/// A client of a cluster: knows some workers, and asks the next when one does not answer.
#[derive(Clone)]
pub struct Client {
    workers: Vec<Peer>,
}

/// A part of a table that is being uploaded.
pub type Piece = Result<Bytes, std::io::Error>;

impl Client {
    /// A client of these workers.
    pub fn new(workers: impl IntoIterator<Item = Peer>) -> Self {
        Self { workers: workers.into_iter().collect() }
    }

    /// A client of the workers at `http://HOST:PORT[,…]`.
    pub fn http(addresses: &str) -> Result<Self, ClientError> {
        let peers = addresses.split(',').map(str::trim).filter(|a| !a.is_empty()).map(Peer::http);
        Ok(Self::new(peers.collect::<Result<Vec<_>, _>>()?))
    }

    /// A client of the workers at `https://HOST:PORT[,…]`, of the cluster that is trusted; with a token, if there is one.
    pub fn https(addresses: &str, trust: &Trust, token: Option<&Secret>) -> Result<Self, ClientError> {
        let shown = token.map(|token| {
            let shown = HeaderValue::try_from(format!("Bearer {}", token.reveal()));
            let mut shown = shown.expect("a secret has letters and digits");
            shown.set_sensitive(true);
            shown
        });
        let addresses = addresses.split(',').map(str::trim).filter(|a| !a.is_empty());
        let peers = addresses.map(|address| {
            let peer = Peer::https(address, trust)?;
            Ok(match shown.clone() {
                Some(shown) => peer.telling(header::AUTHORIZATION, shown),
                None => peer,
            })
        });
        Ok(Self::new(peers.collect::<Result<Vec<_>, PeerError>>()?))
    }

    /// Uploads a table that comes in pieces. A stream cannot be sent twice: when it breaks off nothing is created, and
    /// the caller begins anew.
    pub async fn upload(
        &self,
        name: &str,
        content_type: &str,
        pieces: impl Stream<Item = Piece> + Send + 'static,
    ) -> Result<DatasetView, ClientError> {
        let uri = format!("/v1/datasets?name={}", escape(name));
        self.post_table(&uri, content_type, Body::from_stream(pieces)).await
    }

    /// Uploads the table in a form as a browser sends it (`multipart/form-data`), under the name of its file.
    pub async fn upload_form(&self, content_type: &str, form: Body) -> Result<DatasetView, ClientError> {
        self.post_table("/v1/datasets", content_type, form).await
    }

    async fn post_table(
        &self,
        uri: &str,
        content_type: &str,
        body: Body,
    ) -> Result<DatasetView, ClientError> {
        // An upload goes to a worker that has just answered.
        let worker = self.answering().await?;
        let request = Request::post(uri).header(header::CONTENT_TYPE, content_type).body(body);
        let request = request.map_err(|error| ClientError::Garbled(error.to_string()))?;
        json(checked(worker.call(request).await?).await?).await
    }

    /// A page of datasets, newest first.
    pub async fn datasets(
        &self,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<DatasetView>, ClientError> {
        self.list("datasets", limit, cursor).await
    }

    /// A dataset by id or name.
    pub async fn dataset(&self, id: &str) -> Result<DatasetView, ClientError> {
        self.get(&format!("/v1/datasets/{}", escape(id))).await
    }

    /// The whole table as an Arrow stream, in pieces.
    pub async fn content(&self, id: &str) -> Result<Body, ClientError> {
        let path = format!("/v1/datasets/{}/content", escape(id));
        let arrow = "application/vnd.apache.arrow.stream";
        let response = self.send(Method::GET, &path, Bytes::new(), None, arrow).await?;
        Ok(checked(response).await?.into_body())
    }

    /// Some rows of a dataset.
    pub async fn rows(&self, id: &str, offset: u64, limit: u64) -> Result<RowsView, ClientError> {
        self.get(&format!("/v1/datasets/{}/rows?offset={offset}&limit={limit}", escape(id))).await
    }

    /// Creates a training, or takes up the one that is the same.
    pub async fn train(&self, training: &NewTraining) -> Result<TrainingView, ClientError> {
        self.post("/v1/trainings", training).await
    }

    /// A page of trainings, newest first.
    pub async fn trainings(
        &self,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<TrainingView>, ClientError> {
        self.list("trainings", limit, cursor).await
    }

    /// A training by id or name.
    pub async fn training(&self, id: &str) -> Result<TrainingView, ClientError> {
        self.get(&format!("/v1/trainings/{}", escape(id))).await
    }

    /// A training as it moves: calls `each` with every state of it, the last one included, which is returned.
    pub async fn watch(
        &self,
        id: &str,
        each: impl FnMut(&TrainingView),
    ) -> Result<TrainingView, ClientError> {
        self.follow(Kind::Training, id, each, |training| training.state).await
    }

    /// Cancels a training.
    pub async fn cancel(&self, id: &str) -> Result<TrainingView, ClientError> {
        self.post(&format!("/v1/trainings/{}/cancel", escape(id)), &serde_json::json!({})).await
    }

    /// Creates a study, or takes up the one that is the same.
    pub async fn tune(&self, study: &NewStudy) -> Result<StudyView, ClientError> {
        self.post("/v1/studies", study).await
    }

    /// A page of studies, newest first.
    pub async fn studies(&self, limit: usize, cursor: Option<&str>) -> Result<Page<StudyView>, ClientError> {
        self.list("studies", limit, cursor).await
    }

    /// A study by id or name, at once or when it is over or so much time has passed.
    pub async fn study(&self, id: &str, wait: Duration) -> Result<StudyView, ClientError> {
        self.get(&format!("/v1/studies/{}?wait={}ms", escape(id), wait.as_millis())).await
    }

    /// A study as it moves: calls `each` with every state of it that is seen, the last one included, which is returned.
    pub async fn watch_study(
        &self,
        id: &str,
        each: impl FnMut(&StudyView),
    ) -> Result<StudyView, ClientError> {
        self.follow(Kind::Study, id, each, |study| study.state).await
    }

    /// All trials of a study, best first.
    pub async fn trials(&self, id: &str) -> Result<TrialsView, ClientError> {
        self.get(&format!("/v1/studies/{}/trials", escape(id))).await
    }

    /// The same as a table: CSV.
    pub async fn trials_csv(&self, id: &str) -> Result<Bytes, ClientError> {
        let path = format!("/v1/studies/{}/trials", escape(id));
        let response = checked(self.send(Method::GET, &path, Bytes::new(), None, "text/csv").await?).await?;
        let body = response.into_body().collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| ClientError::Garbled(error.to_string()))
    }

    /// Cancels a study.
    pub async fn cancel_study(&self, id: &str) -> Result<StudyView, ClientError> {
        self.post(&format!("/v1/studies/{}/cancel", escape(id)), &serde_json::json!({})).await
    }

    /// Deletes a dataset, a training, a study, a prediction or a token.
    pub async fn delete(&self, kind: Kind, id: &str) -> Result<(), ClientError> {
        let path = format!("/v1/{}/{}", kind.plural(), escape(id));
        checked(self.send(Method::DELETE, &path, Bytes::new(), None, "application/json").await?).await?;
        Ok(())
    }

    /// Every kind of model.
    pub async fn kinds(&self) -> Result<serde_json::Value, ClientError> {
        self.get("/v1/kinds").await
    }

    /// A page of models, newest first.
    pub async fn models(&self, limit: usize, cursor: Option<&str>) -> Result<Page<ModelView>, ClientError> {
        self.list("models", limit, cursor).await
    }

    /// A model by id or name, or the best model of a training by the training's id or name.
    pub async fn model(&self, id: &str) -> Result<ModelView, ClientError> {
        self.get(&format!("/v1/models/{}", escape(id))).await
    }

    /// A model's bytes: `native` or `json`.
    pub async fn download(&self, id: &str, format: &str) -> Result<Bytes, ClientError> {
        let path = format!("/v1/models/{}/download?format={}", escape(id), escape(format));
        let response = self.send(Method::GET, &path, Bytes::new(), None, "*/*").await?;
        whole(checked(response).await?).await
    }

    /// Predictions at once, for a table in CSV; CSV comes back.
    pub async fn predict_csv(&self, id: &str, table: Bytes) -> Result<Bytes, ClientError> {
        let path = format!("/v1/models/{}/predict", escape(id));
        let response = self.send(Method::POST, &path, table, Some("text/csv"), "text/csv").await?;
        whole(checked(response).await?).await
    }

    /// Predictions at once, for rows of named values.
    pub async fn predict_rows(&self, id: &str, rows: &RowsToPredict) -> Result<PredictedRows, ClientError> {
        self.post(&format!("/v1/models/{}/predict", escape(id)), rows).await
    }

    /// Fits an ensemble and waits for it.
    pub async fn fit_ensemble(&self, order: &NewFit) -> Result<EnsembleView, ClientError> {
        self.post("/v1/ml-distributed/fit", order).await
    }

    /// How good an ensemble is, by name or id, with the members that can be had.
    pub async fn evaluate_ensemble(&self, name: &str) -> Result<EnsembleView, ClientError> {
        let path = format!("/v1/ml-distributed/evaluate?name={}", escape(name));
        self.post(&path, &serde_json::json!({})).await
    }

    /// Predictions of an ensemble, by name or id, with the members that can be had.
    pub async fn predict_ensemble(
        &self,
        name: &str,
        rows: &RowsToPredict,
    ) -> Result<EnsemblePredictions, ClientError> {
        self.post(&format!("/v1/ml-distributed/predict?name={}", escape(name)), rows).await
    }

    /// Creates a batch prediction.
    pub async fn predict(&self, prediction: &NewPrediction) -> Result<PredictionView, ClientError> {
        self.post("/v1/predictions", prediction).await
    }

    /// A page of batch predictions, newest first.
    pub async fn predictions(
        &self,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<PredictionView>, ClientError> {
        self.list("predictions", limit, cursor).await
    }

    /// A batch prediction by id or name; waits for its end, but no longer than `wait_s` seconds.
    pub async fn prediction(&self, id: &str, wait_s: u64) -> Result<PredictionView, ClientError> {
        self.get(&format!("/v1/predictions/{}?wait={wait_s}s", escape(id))).await
    }

    /// A batch prediction as it moves: calls `each` with every state of it that is seen, the last one included, which is
    /// returned.
    pub async fn watch_prediction(
        &self,
        id: &str,
        each: impl FnMut(&PredictionView),
    ) -> Result<PredictionView, ClientError> {
        self.follow(Kind::Prediction, id, each, |prediction| prediction.state).await
    }

    /// The rows predicted so far as CSV, in pieces.
    pub async fn results(&self, id: &str) -> Result<Body, ClientError> {
        let path = format!("/v1/predictions/{}/results", escape(id));
        let response = self.send(Method::GET, &path, Bytes::new(), None, "text/csv").await?;
        Ok(checked(response).await?.into_body())
    }

    /// Creates a token; the answer alone has its secret.
    pub async fn create_token(&self, token: &NewToken) -> Result<TokenView, ClientError> {
        self.post("/v1/tokens", token).await
    }

    /// A page of tokens, newest first.
    pub async fn tokens(&self, limit: usize, cursor: Option<&str>) -> Result<Page<TokenView>, ClientError> {
        self.list("tokens", limit, cursor).await
    }

    /// Revokes the certificate of a node or an administrator, for good.
    pub async fn revoke(&self, node: &str) -> Result<NewRevocation, ClientError> {
        self.post("/v1/revocations", &NewRevocation { node: node.into() }).await
    }

    /// A page of revoked certificates, newest first.
    pub async fn revocations(
        &self,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<RevocationView>, ClientError> {
        self.list("revocations", limit, cursor).await
    }

    /// The nodes of the cluster.
    pub async fn nodes(&self) -> Result<Vec<NodeView>, ClientError> {
        let page: Page<NodeView> = self.get("/v1/nodes").await?;
        Ok(page.items)
    }

    /// The last lines of the log of the worker that answers, newest first, that are at least so bad.
    pub async fn logs(&self, level: Level, limit: usize) -> Result<Vec<Line>, ClientError> {
        let page: Page<Line> = self.get(&format!("/v1/logs?level={}&limit={limit}", level.name())).await?;
        Ok(page.items)
    }

    /// The API described for machines: OpenAPI 3.1.
    pub async fn openapi(&self) -> Result<serde_json::Value, ClientError> {
        self.get("/openapi.json").await
    }

    /// Where a dataset, training, model, prediction or job is, who owns it, and who works on it.
    pub async fn routing(&self, name: &str) -> Result<RoutingView, ClientError> {
        self.get(&format!("/v1/routing/{}", escape(name))).await
    }

    /// Something as it moves: calls `each` with every event of it, up to the one in which it is over.
    async fn follow<V: DeserializeOwned>(
        &self,
        kind: Kind,
        id: &str,
        mut each: impl FnMut(&V),
        state: impl Fn(&V) -> State,
    ) -> Result<V, ClientError> {
        let path = format!("/v1/{}/{}/events", kind.plural(), escape(id));
        let mut failures = 0;
        loop {
            let opened = match self.send(Method::GET, &path, Bytes::new(), None, "text/event-stream").await {
                Ok(response) => checked(response).await,
                Err(error) => Err(error),
            };
            let mut body = match opened {
                Ok(response) => response.into_body(),
                Err(ClientError::Problem(problem)) if problem.status != 503 => return Err(problem.into()),
                Err(error) if failures >= MAX_FAILURES => return Err(error),
                Err(_) => {
                    failures += 1;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let mut buffer = Vec::new();
            while let Some(Ok(frame)) = body.frame().await {
                let Ok(data) = frame.into_data() else { continue };
                buffer.extend_from_slice(&data);
                while let Some(end) = buffer.windows(2).position(|two| two == b"\n\n") {
                    let event: Vec<u8> = buffer.drain(..end + 2).collect();
                    let Some(view) = event_data(&event) else { continue };
                    failures = 0;
                    each(&view);
                    if state(&view).is_final() {
                        return Ok(view);
                    }
                }
            }
            // The node that served the events is gone, or its connection: the next one goes on.
            failures += 1;
            if failures > MAX_FAILURES {
                let why = format!("the events of the {} break off again and again", kind.name());
                return Err(ClientError::Garbled(why));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn list<T: DeserializeOwned>(
        &self,
        things: &str,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<T>, ClientError> {
        let cursor = cursor.map(|cursor| format!("&cursor={}", escape(cursor))).unwrap_or_default();
        self.get(&format!("/v1/{things}?limit={limit}{cursor}")).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.send(Method::GET, path, Bytes::new(), None, "application/json").await?;
        json(checked(response).await?).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Garbled(error.to_string()))?;
        let kind = Some("application/json");
        json(checked(self.send(Method::POST, path, body.into(), kind, "application/json").await?).await?)
            .await
    }

    /// Whether any of the nodes is alive; it may be a db node, too.
    pub async fn alive(&self) -> Result<(), ClientError> {
        let node = self.answering().await?;
        let asked = node.call(Request::get("/healthz").body(Body::empty()).expect("a plain path"));
        checked(in_time(node, PROBE, asked).await?).await.map(drop)
    }

    /// A worker that is alive.
    async fn answering(&self) -> Result<&Peer, ClientError> {
        let mut error = PeerError::Address(String::new());
        for worker in &self.workers {
            let asked = worker.call(Request::get("/healthz").body(Body::empty()).expect("a plain path"));
            match in_time(worker, PROBE, asked).await {
                Ok(_) => return Ok(worker),
                Err(silent) => error = silent,
            }
        }
        Err(error.into())
    }

    /// Sends a request to the first worker that answers. Each may be sent twice: doing a thing twice does it once. What
    /// one worker does not find another may: those on the other side of a split network.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        content_type: Option<&str>,
        accept: &str,
    ) -> Result<Response<Body>, ClientError> {
        let mut error = PeerError::Address(String::new());
        let mut missing = None;
        for worker in &self.workers {
            let mut request =
                Request::builder().method(method.clone()).uri(path).header(header::ACCEPT, accept);
            if let Some(kind) = content_type {
                request = request.header(header::CONTENT_TYPE, kind);
            }
            let request = request.body(Body::from(body.clone()));
            let request = request.map_err(|error| ClientError::Garbled(error.to_string()))?;
            let patience = if missing.is_some() { PROBE } else { PATIENCE };
            match in_time(worker, patience, worker.call(request)).await {
                Ok(response) if response.status() == StatusCode::NOT_FOUND && method == Method::GET => {
                    missing = missing.or(Some(response));
                }
                Ok(response) => return Ok(response),
                Err(silent) => error = silent,
            }
        }
        missing.ok_or(error.into())
    }
}

/// How often the events of a training may break off before it is given up.
const MAX_FAILURES: u32 = 30;

/// How long a worker may take to say that it is alive.
const PROBE: Duration = Duration::from_secs(5);

/// How long the head of an answer may take: longer than the longest wait that the API allows.
const PATIENCE: Duration = Duration::from_secs(330);

type Answer = Result<Response<Body>, PeerError>;

async fn in_time(worker: &Peer, patience: Duration, call: impl Future<Output = Answer>) -> Answer {
    tokio::time::timeout(patience, call).await.unwrap_or_else(|_| {
        let address = worker.address().unwrap_or("the worker").into();
        Err(PeerError::Silent { address, why: format!("no answer within {} s", patience.as_secs()) })
    })
}

/// An answer that is no error.
async fn checked(response: Response<Body>) -> Result<Response<Body>, ClientError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let bytes = whole(response).await?;
    match serde_json::from_slice::<Problem>(&bytes) {
        Ok(problem) => Err(problem.into()),
        Err(_) => {
            let status = StatusCode::from_u16(status.as_u16()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let words = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
            Err(Problem::new(status, "no-words", words).into())
        }
    }
}

async fn whole(response: Response<Body>) -> Result<Bytes, ClientError> {
    let body = response.into_body().collect().await;
    Ok(body.map_err(|error| ClientError::Garbled(error.to_string()))?.to_bytes())
}

async fn json<T: DeserializeOwned>(response: Response<Body>) -> Result<T, ClientError> {
    serde_json::from_slice(&whole(response).await?).map_err(|error| ClientError::Garbled(error.to_string()))
}

/// The training in a server-sent event; none if it is a comment.
fn event_data<V: DeserializeOwned>(event: &[u8]) -> Option<V> {
    let text = std::str::from_utf8(event).ok()?;
    let data: String = text.lines().filter_map(|line| line.strip_prefix("data:")).collect();
    serde_json::from_str(&data).ok()
}

/// A text as one segment of a path or a value of a query (RFC 3986).
pub fn escape(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if keep(byte) {
            escaped.push(byte as char);
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::get};

    use super::*;

    #[test]
    fn hostile_names_stay_one_segment() {
        assert_eq!(escape("a/b ?#%é"), "a%2Fb%20%3F%23%25%C3%A9");
        assert_eq!(escape("penguins-1_2.csv~"), "penguins-1_2.csv~");
    }

    #[tokio::test]
    async fn what_one_side_of_a_split_does_not_know_the_other_may() {
        let row = |total: u64| {
            let page = RowsView { rows: Vec::new(), offset: 0, total };
            Router::new().route("/v1/datasets/{id}/rows", get(move || async move { axum::Json(page) }))
        };
        let workers = [Router::new(), row(1), row(2)].map(Peer::router);
        let rows = |workers: &[Peer]| Client::new(workers.to_vec());
        assert_eq!(rows(&workers).rows("a", 0, 1).await.unwrap().total, 1);
        let nowhere = [Router::new(), Router::new()].map(Peer::router);
        let Err(ClientError::Problem(problem)) = rows(&nowhere).rows("a", 0, 1).await else { panic!() };
        assert_eq!(problem.status, 404);
        // Who does not answer says nothing of what there is.
        let silent = [Peer::router(Router::new()), Peer::http("http://127.0.0.1:1").unwrap()];
        let Err(ClientError::Problem(problem)) = rows(&silent).rows("a", 0, 1).await else { panic!() };
        assert_eq!(problem.status, 404);
    }
}
