//! The REST API described for machines: OpenAPI 3.1 (OpenAPI Initiative 2021). Schemas follow from the types that the
//! server reads and writes.

use std::sync::LazyLock;

use axum::Json;
use dml_compute::Kind;
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::table_body::{ARROW, NDJSON, PARQUET};
use crate::{
    logs::Line,
    problem::Problem,
    view::{
        DatasetView, EnsemblePredictions, EnsembleView, ModelView, NewFit, NewPrediction, NewRevocation,
        NewStudy, NewToken, NewTraining, NodeView, Page, PredictedRows, PredictionView, RevocationView,
        RoutingView, RowsToPredict, RowsView, StudyView, TokenView, TrainingView, TrialsView,
    },
};

pub(super) async fn document() -> Json<&'static Value> {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(build);
    Json(&DOCUMENT)
}

const CSV: &str = "text/csv";
const FILE: &str = "application/octet-stream";
const JSON: &str = "application/json";

fn build() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut api = Api { schemas: settings.into_generator(), paths: Map::new() };
    api.datasets();
    api.trainings();
    api.studies();
    api.models();
    api.ensembles();
    api.predictions();
    api.tokens();
    api.cluster();
    let problem = api.schemas.subschema_for::<Problem>();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "DML",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Every worker answers it. Names work wherever ids do. What is created is named after its content, so a \
                            request may be sent twice and does its work once.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "paths": api.paths,
        // A cluster without certificates asks nobody for a token.
        "security": [{ "token": [] }, {}],
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": api.schemas.take_definitions(true),
            "responses": { "Problem": {
                "description": "What is wrong, where, and how to mend it (RFC 9457).",
                "content": { "application/problem+json": { "schema": problem } },
            } },
        },
    })
}

struct Api {
    schemas: SchemaGenerator,
    paths: Map<String, Value>,
}

/// A thing that an operation takes or gives: its media type and schema.
type Content = (&'static str, Value);

impl Api {
    fn datasets(&mut self) {
        let created = self.of::<DatasetView>();
        self.operation("post", "/v1/datasets", "Uploads a table")
            .about("The body is streamed; types are found over the whole table. gzip and zstd are taken as `Content-Encoding`.")
            .query("name", json!({ "type": "string", "maxLength": 200 }), "What to call it.")
            .key()
            .takes([
                (CSV, text()),
                (NDJSON, text()),
                (ARROW, binary()),
                (PARQUET, binary()),
                ("multipart/form-data", form()),
            ])
            .gives("201", "The dataset.", [created]);
        self.list::<DatasetView>("/v1/datasets", "datasets");
        self.show::<DatasetView>("/v1/datasets/{id}", "a dataset: columns with types, blanks and statistics");
        self.delete("/v1/datasets/{id}", "a dataset, unless work that is not finished needs it");
        let rows = self.of::<RowsView>();
        self.operation("get", "/v1/datasets/{id}/rows", "Shows some rows")
            .query("offset", json!({ "type": "integer", "minimum": 0 }), "From which row on.")
            .query(
                "limit",
                json!({ "type": "integer", "minimum": 0, "maximum": 10_000 }),
                "How many; 20 by default.",
            )
            .gives("200", "The rows, an object each.", [rows]);
        let rows = [(CSV, text()), (NDJSON, text()), (ARROW, binary()), (PARQUET, binary())];
        self.operation("get", "/v1/datasets/{id}/content", "Downloads the table").in_parts().gives(
            "200",
            "The whole table.",
            rows,
        );
    }

    fn trainings(&mut self) {
        let (new, created) = (self.of::<NewTraining>(), self.of::<TrainingView>());
        self.operation("post", "/v1/trainings", "Trains models")
            .about("The same request is the same training. Without `models`, every default kind for the task is trained.")
            .key()
            .takes([new])
            .gives("202", "The training, which goes on by itself.", [created.clone()]);
        self.list::<TrainingView>("/v1/trainings", "trainings");
        self.operation("get", "/v1/trainings/{id}", "Shows a training")
            .query("wait", wait(), "Answer when it is over, or after that time: `30s`.")
            .gives("200", "The training, its models best first.", [created.clone()]);
        self.delete("/v1/trainings/{id}", "a training with its models");
        self.events("/v1/trainings/{id}/events", "training");
        self.operation("post", "/v1/trainings/{id}/cancel", "Cancels what is left of a training")
            .about("Creating it again takes it up again.")
            .gives("200", "The training.", [created]);
    }

    fn studies(&mut self) {
        let (new, created) = (self.of::<NewStudy>(), self.of::<StudyView>());
        self.operation("post", "/v1/studies", "Searches for the best parameters")
            .about(
                "The same request is the same study, with the same trials on any number of workers. The best of them are trained and kept \
                 as a training of the study's name.",
            )
            .key()
            .takes([new])
            .gives("202", "The study, which goes on by itself.", [created.clone()]);
        self.list::<StudyView>("/v1/studies", "studies");
        self.operation("get", "/v1/studies/{id}", "Shows a study")
            .query("wait", wait(), "Answer when it is over, or after that time: `30s`.")
            .gives("200", "The study with its best trials so far.", [created.clone()]);
        self.delete("/v1/studies/{id}", "a study; the training that it ended in stays");
        self.events("/v1/studies/{id}/events", "study");
        let trials = self.of::<TrialsView>();
        self.operation("get", "/v1/studies/{id}/trials", "Shows all trials of a study").gives(
            "200",
            "The trials so far, best first.",
            [trials, (CSV, text())],
        );
        self.operation("post", "/v1/studies/{id}/cancel", "Cancels what is left of a study")
            .about("Creating it again takes it up again.")
            .gives("200", "The study.", [created]);
    }

    fn models(&mut self) {
        // Kinds are written and never read, so their schema is that of what is written.
        let kinds = self.of::<Page<Kind>>();
        self.operation("get", "/v1/kinds", "Shows every kind of model with its parameters").gives(
            "200",
            "The kinds.",
            [kinds],
        );
        self.list::<ModelView>("/v1/models", "models");
        self.show::<ModelView>("/v1/models/{id}", "a model; a training's name means its best");
        self.operation("get", "/v1/models/{id}/download", "Downloads a model with its preprocessing")
            .query(
                "format",
                json!({ "type": "string", "enum": ["native", "onnx", "json"] }),
                "`native` by default.",
            )
            .in_parts()
            .gives("200", "The file.", [(FILE, binary()), (JSON, json!({ "type": "object" }))]);
        let (rows, predicted) = (self.of::<RowsToPredict>(), self.of::<PredictedRows>());
        self.operation("post", "/v1/models/{id}/predict", "Predicts rows at once")
            .about("Up to 32 MiB; missing columns count as blank. What comes back is as `Accept` says.")
            .takes([rows, (NDJSON, text()), (CSV, text()), (ARROW, binary())])
            .gives(
                "200",
                "A prediction a row; of a classifier with the probability of each class.",
                [predicted, (NDJSON, text()), (CSV, text()), (ARROW, binary())],
            );
    }

    fn ensembles(&mut self) {
        let which = json!({ "type": "string" });
        let name = "The name under which it was fitted; `ml-distributed` by default.";
        let degraded = "How many members took part of how many, `3/5`, if not all did.";
        let (new, view) = (self.of::<NewFit>(), self.of::<EnsembleView>());
        self.operation("post", "/v1/ml-distributed/fit", "Fits an ensemble, and waits for it")
            .about(
                "The same request is the same training. Without a body, five models learn the prices of the houses that come \
                 with DML.",
            )
            .query("wait", wait(), "Answer after that time with the members that are fitted: `300s` by default.")
            .key()
            .takes([new])
            .optional()
            .tells("DML-Degraded", degraded)
            .gives("200", "The ensemble, its quality and what failed.", [view.clone()]);
        self.operation("post", "/v1/ml-distributed/evaluate", "Measures an ensemble")
            .about("The members that can be had are judged together by rows that none has learned from.")
            .query("name", which.clone(), name)
            .tells("DML-Degraded", degraded)
            .gives("200", "The ensemble, its quality and what failed.", [view]);
        let (rows, predicted) = (self.of::<RowsToPredict>(), self.of::<EnsemblePredictions>());
        self.operation("post", "/v1/ml-distributed/predict", "Predicts rows with an ensemble")
            .about("JSON may also be one row alone, `{COLUMN: VALUE, …}`, or a list of rows. Up to 32 MiB.")
            .query("name", which, name)
            .takes([rows, (NDJSON, text()), (CSV, text()), (ARROW, binary())])
            .tells("DML-Degraded", degraded)
            .gives(
                "200",
                "The predictions, the members that made them, their quality and what failed.",
                [predicted],
            );
    }

    fn predictions(&mut self) {
        let (new, created) = (self.of::<NewPrediction>(), self.of::<PredictionView>());
        self.operation("post", "/v1/predictions", "Predicts a whole dataset").key().takes([new]).gives(
            "202",
            "The prediction, which goes on by itself.",
            [created.clone()],
        );
        self.list::<PredictionView>("/v1/predictions", "predictions");
        self.operation("get", "/v1/predictions/{id}", "Shows a prediction")
            .query("wait", wait(), "Answer when it is over, or after that time: `30s`.")
            .gives("200", "The prediction.", [created]);
        self.events("/v1/predictions/{id}/events", "prediction");
        self.delete("/v1/predictions/{id}", "a prediction");
        self.operation("get", "/v1/predictions/{id}/results", "Downloads what is predicted")
            .about("Readable from the first batch on; the header `dml-complete` tells whether it is all.")
            .in_parts()
            .gives(
                "200",
                "The rows predicted so far.",
                [(CSV, text()), (NDJSON, text()), (ARROW, binary()), (PARQUET, binary())],
            );
    }

    fn tokens(&mut self) {
        let (new, created) = (self.of::<NewToken>(), self.of::<TokenView>());
        self.operation("post", "/v1/tokens", "Creates a token by which a user is known")
            .key()
            .takes([new])
            .gives("201", "The token, with its secret this once.", [created]);
        self.list::<TokenView>("/v1/tokens", "tokens");
        self.delete("/v1/tokens/{id}", "a token: it is of no use any more");
        let (new, created) = (self.of::<NewRevocation>(), self.of::<NewRevocation>());
        self.operation(
            "post",
            "/v1/revocations",
            "Revokes the certificate of a node or an administrator, for good",
        )
        .takes([new])
        .gives("201", "It is refused by every node that hears of it.", [created]);
        self.list::<RevocationView>("/v1/revocations", "revoked certificates");
    }

    fn cluster(&mut self) {
        let nodes = self.of::<Page<NodeView>>();
        self.operation("get", "/v1/nodes", "Shows every node ever seen").gives("200", "The nodes.", [nodes]);
        self.show::<RoutingView>("/v1/routing/{id}", "where something is, who owns it and who works on it");
        let lines = self.of::<Page<Line>>();
        self.operation("get", "/v1/logs", "Shows the last lines of this worker's log, newest first")
            .about("For administrators, in a cluster that knows its users. The lines are gone when the worker is started again.")
            .query(
                "level",
                json!({ "type": "string", "enum": ["error", "warn", "info", "debug"] }),
                "At least so bad; `info` by default.",
            )
            .query("limit", json!({ "type": "integer", "minimum": 1, "maximum": 2000 }), "How many; 200 by default.")
            .gives("200", "The lines.", [lines]);
        for (path, about) in [
            ("/healthz", "Whether the worker is alive"),
            ("/readyz", "Whether a db node answers it"),
            ("/metrics", "What to watch, for Prometheus"),
        ] {
            self.operation("get", path, about).gives("200", "It is.", [("text/plain", text())]);
        }
    }

    /// A type as JSON.
    fn of<T: JsonSchema>(&mut self) -> Content {
        (JSON, self.schemas.subschema_for::<T>().to_value())
    }

    fn list<T: JsonSchema>(&mut self, path: &'static str, things: &str) {
        let page = self.of::<Page<T>>();
        self.operation("get", path, &format!("Lists {things}, newest first"))
            .query(
                "limit",
                json!({ "type": "integer", "minimum": 1, "maximum": 1000 }),
                "How many; 50 by default.",
            )
            .query("cursor", json!({ "type": "string" }), "`next_cursor` of the page before.")
            .linked("The next page, if there is one (RFC 8288): `<?limit=…&cursor=…>; rel=\"next\"`.")
            .gives("200", "A page.", [page]);
    }

    fn show<T: JsonSchema>(&mut self, path: &'static str, thing: &str) {
        let view = self.of::<T>();
        self.operation("get", path, &format!("Shows {thing}")).gives("200", "It.", [view]);
    }

    fn events(&mut self, path: &'static str, event: &str) {
        self.operation("get", path, &format!("Watches a {event}"))
            .header(
                "Last-Event-ID",
                "The id of the last event that was seen: what is the same is not told again.",
            )
            .also("204", "It is over, and the client has seen that.")
            .gives(
                "200",
                &format!("Server-sent events: `{event}` each time that it has moved."),
                [("text/event-stream", text())],
            );
    }

    fn delete(&mut self, path: &'static str, thing: &str) {
        self.operation("delete", path, &format!("Deletes {thing}")).gives("204", "It is deleted.", []);
    }

    fn operation(&mut self, method: &'static str, path: &'static str, summary: &str) -> Operation<'_> {
        let path_item = self.paths.entry(path).or_insert_with(|| json!({}));
        let mut parameters = Vec::new();
        if path.contains("{id}") {
            let about = "An id, the beginning of one, or a name.";
            parameters.push(parameter("path", "id", json!({ "type": "string" }), about));
        }
        let name = |part: &str| part.trim_matches(['{', '}']).replace(|c: char| !c.is_alphanumeric(), "_");
        let id: Vec<String> = path.split('/').filter(|part| !matches!(*part, "" | "v1")).map(name).collect();
        path_item[method] = json!({
            "operationId": format!("{method}_{}", id.join("_")),
            "summary": summary,
            "parameters": parameters,
            "responses": { "default": { "$ref": "#/components/responses/Problem" } },
        });
        Operation(&mut path_item[method])
    }
}

/// What is said of an operation so far.
struct Operation<'a>(&'a mut Value);

impl Operation<'_> {
    fn about(self, text: &str) -> Self {
        self.0["description"] = text.into();
        self
    }

    fn query(self, name: &str, schema: Value, about: &str) -> Self {
        if let Some(parameters) = self.0["parameters"].as_array_mut() {
            parameters.push(parameter("query", name, schema, about));
        }
        self
    }

    fn header(self, name: &str, about: &str) -> Self {
        if let Some(parameters) = self.0["parameters"].as_array_mut() {
            parameters.push(parameter("header", name, text(), about));
        }
        self
    }

    /// Takes a key that tells one request from another.
    fn key(self) -> Self {
        self.header(
            "Idempotency-Key",
            "One for each thing that is to be created: with another request it is refused.",
        )
    }

    /// Can be had in parts.
    fn in_parts(self) -> Self {
        self.header("Range", "One range of bytes: `bytes=1000-`.")
            .header(
                "If-Range",
                "The `ETag` of what the client has a part of: of anything else it gets the whole.",
            )
            .header("If-None-Match", "The `ETag` of what the client has.")
            .also("206", "The part.")
            .also("304", "The client has it.")
            .refuses("416")
    }

    /// Another way in which it may be answered, without a body that is described.
    fn also(self, status: &str, about: &str) -> Self {
        self.0["responses"][status] = json!({ "description": about });
        self
    }

    /// A status with a problem.
    fn refuses(self, status: &str) -> Self {
        self.0["responses"][status] = json!({ "$ref": "#/components/responses/Problem" });
        self
    }

    /// The body may be left out.
    fn optional(self) -> Self {
        self.0["requestBody"]["required"] = false.into();
        self
    }

    /// Tells of a header of the answer.
    fn tells(self, name: &str, about: &str) -> Self {
        let header = json!({ "description": about, "schema": text() });
        self.0["responses"]["200"] = json!({ "headers": { name: header } });
        self
    }

    /// Tells of the header `Link`.
    fn linked(self, about: &str) -> Self {
        self.tells("Link", about)
    }

    fn takes<const N: usize>(self, bodies: [Content; N]) -> Self {
        self.0["requestBody"] = json!({ "required": true, "content": content(bodies) });
        self
    }

    fn gives<const N: usize>(self, status: &str, about: &str, bodies: [Content; N]) {
        self.0["responses"][status]["description"] = about.into();
        if N > 0 {
            self.0["responses"][status]["content"] = content(bodies);
        }
    }
}

fn content<const N: usize>(bodies: [Content; N]) -> Value {
    bodies
        .into_iter()
        .map(|(kind, schema)| (kind.to_string(), json!({ "schema": schema })))
        .collect::<Map<_, _>>()
        .into()
}

fn parameter(place: &str, name: &str, schema: Value, about: &str) -> Value {
    json!({ "in": place, "name": name, "required": place == "path", "schema": schema, "description": about })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn binary() -> Value {
    json!({ "type": "string", "format": "binary" })
}

fn form() -> Value {
    json!({ "type": "object", "required": ["file"], "properties": { "file": binary() } })
}

fn wait() -> Value {
    json!({ "type": "string", "pattern": "^[0-9]{1,9}(ms|s)?$" })
}
