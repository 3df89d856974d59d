//! What users do, from the upload to the results, through the REST API.

use crate::common::{cluster, houses, penguins, training, upload};
use axum::body::Body;
use dml::{
    ClientError, Model, Registry,
    core::{record::Kind, training::State},
    view::{NewModel, NewPrediction, NewTraining, NewValidation},
};
use http_body_util::BodyExt;
use hyper::Request;

fn code(error: ClientError) -> String {
    match error {
        ClientError::Problem(problem) => problem.code,
        other => panic!("{other}"),
    }
}

async fn text(body: Body) -> String {
    String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_table_to_predictions() {
    let client = cluster(2, 2).client;
    let dataset = upload(&client, "penguins", penguins()).await;
    assert_eq!((dataset.rows, dataset.columns.len(), dataset.replicas), (344, 8, Some(1)));
    assert_eq!(upload(&client, "birds", penguins()).await.id, dataset.id, "same content, same thing");
    assert_eq!(client.dataset("birds").await.unwrap().id, dataset.id);

    let view = client.train(&training("penguins", "species")).await.unwrap();
    assert_eq!(
        client.train(&training("birds", "species")).await.unwrap().id,
        view.id,
        "same request, same thing"
    );
    let mut progress = Vec::new();
    let view = client.watch(&view.id.to_string(), |now| progress.push(now.progress)).await.unwrap();
    assert!(progress.is_sorted() && progress.last() == Some(&1.0), "{progress:?}");
    assert_eq!(view.state, State::Succeeded);
    assert!(view.models[0].metrics.as_ref().unwrap()["accuracy"].as_f64().unwrap() >= 0.97, "{view:#?}");

    let best = client.model("birds-species").await.unwrap();
    assert_eq!(Some(best.id), view.best);
    assert_eq!(client.model(&best.name).await.unwrap().id, best.id, "models have names");
    let shares: f64 =
        client.model("birds-species/random_forest").await.unwrap().importance.unwrap().values().sum();
    assert!((shares - 1.0).abs() < 1e-9);

    let new =
        NewPrediction { model: "birds-species".into(), dataset: "birds".into(), name: Some("all".into()) };
    client.predict(&new).await.unwrap();
    let prediction = client.prediction("all", 60).await.unwrap();
    assert_eq!(prediction.state, State::Succeeded);
    let batch = text(client.results("all").await.unwrap()).await;
    let at_once = client.predict_csv("birds-species", penguins().into()).await.unwrap();
    assert_eq!(batch.as_bytes(), &at_once[..], "in a batch or at once: the same");
    assert_eq!(batch.lines().count(), 345);

    client.delete(Kind::Prediction, "all").await.unwrap();
    client.delete(Kind::Training, "birds-species").await.unwrap();
    client.delete(Kind::Dataset, "birds").await.unwrap();
    assert_eq!(code(client.dataset("penguins").await.unwrap_err()), "not-found");
    assert_eq!(client.models(10, None).await.unwrap().items.len(), 0);
    let again = upload(&client, "birds", penguins()).await;
    assert_eq!(again.id, dataset.id, "what was deleted can be made again");
    assert_eq!(client.train(&training("birds", "species")).await.unwrap().id, view.id);
    let after = client.watch(&view.id.to_string(), |_| ()).await.unwrap();
    assert_eq!(after.models[0].digest, view.models[0].digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn folds_judge_by_every_row_and_keep_a_model_of_all() {
    let client = cluster(1, 2).client;
    upload(&client, "houses", houses()).await;
    let models = vec![NewModel { kind: "linear".into(), ..NewModel::default() }];
    let new =
        NewTraining { models, validation: Some(NewValidation::Folds(5)), ..training("houses", "price") };
    let view = client.train(&new).await.unwrap();
    let view = client.watch(&view.id.to_string(), |_| ()).await.unwrap();
    let metrics = view.models[0].metrics.as_ref().unwrap();
    assert!(metrics["r2"].as_f64().unwrap() >= 0.62, "{metrics}");
    assert_eq!(metrics["rows"].as_u64(), Some(546));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_training_can_be_taken_up_again() {
    // Without workers nothing moves.
    let parts = cluster(0, 1);
    let client = &parts.client;
    upload(client, "houses", houses()).await;
    let view = client.train(&training("houses", "price")).await.unwrap();
    assert_eq!(view.state, State::Queued);
    assert_eq!(code(client.delete(Kind::Dataset, "houses").await.unwrap_err()), "in-use");
    assert_eq!(client.cancel("houses-price").await.unwrap().state, State::Cancelled);
    parts.work();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(client.training("houses-price").await.unwrap().progress, 0.0, "nobody works on it");
    assert!(!client.train(&training("houses", "price")).await.unwrap().state.is_final());
    let view = client.watch("houses-price", |_| ()).await.unwrap();
    assert_eq!(view.state, State::Succeeded);
    assert_eq!(code(client.cancel("houses-price").await.unwrap_err()), "not-cancellable");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_have_pages_and_forms_are_taken() {
    let parts = cluster(1, 1);
    for n in 0..5 {
        upload(&parts.client, &format!("t{n}"), format!("a,b\n{n},1\n").into_bytes()).await;
    }
    let (mut names, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let page = parts.client.datasets(2, cursor.as_deref()).await.unwrap();
        names.extend(page.items.into_iter().filter_map(|dataset| dataset.name));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    names.sort();
    assert_eq!(names, ["t0", "t1", "t2", "t3", "t4"]);

    let form = "--X\r\ncontent-disposition: form-data; name=\"note\"\r\n\r\nhello\r\n--X\r\ncontent-disposition: \
                form-data; name=\"file\"; filename=\"my table.csv\"\r\n\r\nx,y\n1,2\n\r\n--X--\r\n";
    let request = Request::post("/v1/datasets").header("content-type", "multipart/form-data; boundary=X");
    let answer = parts.api.call(request.body(Body::from(form)).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 201);
    assert!(text(answer.into_body()).await.contains("\"my table\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_means_what_was_called_so_last() {
    let client = cluster(1, 1).client;
    let table = |n: u8| format!("a,b\n{n},1\n").into_bytes();
    let first = upload(&client, "t", table(1)).await;
    // A clock that shows people milliseconds tells these apart.
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let second = upload(&client, "t", table(2)).await;
    assert_eq!(client.dataset("t").await.unwrap().id, second.id);
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    assert_eq!(upload(&client, "t", table(1)).await.id, first.id);
    assert_eq!(client.dataset("t").await.unwrap().id, first.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_can_be_taken_away() {
    let parts = cluster(1, 1);
    let client = &parts.client;
    upload(client, "houses", houses()).await;
    let models = vec![NewModel { kind: "ridge".into(), ..NewModel::default() }];
    let view = client.train(&NewTraining { models, ..training("houses", "price") }).await.unwrap();
    client.watch(&view.id.to_string(), |_| ()).await.unwrap();

    let native = client.download("houses-price", "native").await.unwrap();
    let model = Model::from_bytes(&native).unwrap();
    let id = client.model("houses-price").await.unwrap().id.to_string();
    let onnx = client.download("houses-price", "onnx").await.unwrap();
    assert_eq!(onnx, model.to_onnx(&Registry::default(), &id).unwrap());
    let json = client.download("houses-price", "json").await.unwrap();
    assert_eq!(json, model.to_json(&Registry::default()).unwrap());
    assert_eq!(code(client.download("houses-price", "pickle").await.unwrap_err()), "unknown-format");

    let request = Request::get("/v1/models/houses-price/download?format=onnx").body(Body::empty());
    let answer = parts.api.call(request.unwrap()).await.unwrap();
    assert_eq!(answer.headers()["content-disposition"], "attachment; filename=\"ridge.onnx\"");
    assert_eq!(answer.headers()["content-type"], "application/octet-stream");
}
