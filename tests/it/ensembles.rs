//! Ensembles: members that are fitted by several workers, that are lost one after the other, and what is said of it.

use axum::body::{Body, Bytes};
use dml::{
    Db, Peer, Registry, Worker,
    compute::Engine,
    core::{Digest, rng},
    net::{link::Link, worker::Options},
    store::Store,
    view::{NewFit, RowsToPredict},
};
use http_body_util::BodyExt;
use hyper::Request;
use serde_json::{Value, json};

use crate::common::{Parts, cluster, penguins, upload, upload_whole};

const HOUSE: &str = "data/house_pricing/other/one_prediction_house_pricing_test.json";

struct Answer {
    status: u16,
    degraded: Option<String>,
    json: Value,
}

impl Answer {
    fn code(&self) -> (u16, &str) {
        (self.status, self.json["code"].as_str().unwrap_or_default())
    }

    fn members(&self) -> Vec<&str> {
        self.json["members"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect()
    }
}

async fn send(api: &Peer, path: &str, body: impl Into<Body>) -> Answer {
    let request =
        Request::post(format!("/v1/ml-distributed/{path}")).header("content-type", "application/json");
    let answer = api.call(request.body(body.into()).unwrap()).await.unwrap();
    let degraded = answer.headers().get("dml-degraded").map(|value| value.to_str().unwrap().to_string());
    let status = answer.status().as_u16();
    let bytes: Bytes = answer.into_body().collect().await.unwrap().to_bytes();
    Answer { status, degraded, json: serde_json::from_slice(&bytes).unwrap() }
}

async fn post(api: &Peer, path: &str, body: &Value) -> Answer {
    send(api, path, body.to_string()).await
}

/// A worker that has seen nothing yet and takes no work.
fn newcomer(db: &Db) -> Peer {
    let link = Link::new([Peer::router(db.router())]);
    let worker = Worker::new(link, Engine::new(Registry::default()), Options::default());
    Peer::router(worker.router())
}

fn rows(row: &Value) -> RowsToPredict {
    RowsToPredict { rows: vec![row.as_object().unwrap().clone()] }
}

/// Whether the first metric of a report lies within the bounds that are told for it.
fn measured(quality: &Value, metric: &str) -> bool {
    let (value, interval) = (quality[metric].as_f64().unwrap(), &quality["interval"][metric]);
    interval[0].as_f64().unwrap() <= value && value <= interval[1].as_f64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_body_the_prices_of_houses_are_learned() {
    let parts = cluster(3, 1);
    let house = std::fs::read_to_string(HOUSE).unwrap();
    for path in ["evaluate", "predict", "predict?name=other"] {
        assert_eq!(send(&parts.api, path, house.clone()).await.code(), (409, "not-fitted"), "{path}");
    }
    let fitted = send(&parts.api, "fit", "").await;
    assert_eq!((fitted.status, &fitted.degraded), (200, &None), "{}", fitted.json);
    assert_eq!(fitted.members(), ["ridge", "decision_tree", "knn_regressor", "linear_svr", "elastic_net"]);
    assert_eq!((&fitted.json["members_used"], &fitted.json["members_total"]), (&json!(5), &json!(5)));
    assert_eq!((&fitted.json["errors"], &fitted.json["name"]), (&json!([]), &json!("ml-distributed")));
    assert!(measured(&fitted.json["quality"], "rmse"));
    let again = send(&parts.api, "fit", "{}").await;
    assert_eq!(again.json, fitted.json, "the same request is the same training");
    let names = parts.client.datasets(10, None).await.unwrap().items;
    assert_eq!(names.iter().map(|table| table.name.as_deref()).collect::<Vec<_>>(), [Some("houses")]);

    let evaluated = send(&newcomer(&parts.db), "evaluate", "").await;
    assert_eq!(evaluated.json, fitted.json, "whichever worker measures finds the same");
    let predicted = send(&parts.api, "predict", house.clone()).await;
    let price = predicted.json["predictions"][0]["prediction"].as_f64().unwrap();
    assert!((30_000.0..90_000.0).contains(&price), "{price}");
    assert_eq!(predicted.json["quality"], fitted.json["quality"]);
    let row: Value = serde_json::from_str(&house).unwrap();
    for body in [json!([row]), json!({ "rows": [row] })] {
        assert_eq!(post(&parts.api, "predict", &body).await.json, predicted.json);
    }
    // The client of programs in Rust asks the same.
    let known = parts.client.evaluate_ensemble("ml-distributed").await.unwrap();
    assert_eq!(serde_json::to_value(&known).unwrap(), fitted.json);
    let by_id = parts.client.predict_ensemble(&known.training.to_string(), &rows(&row)).await.unwrap();
    assert_eq!(serde_json::to_value(&by_id.predictions).unwrap(), predicted.json["predictions"]);
    let small = NewFit { members: Some(2), name: Some("small".into()), ..NewFit::default() };
    assert_eq!(parts.client.fit_ensemble(&small).await.unwrap().members_used, 2);
    let view = parts.client.training("ml-distributed").await.unwrap();
    let page = Request::get(format!("/trainings/{}", view.id)).body(Body::empty()).unwrap();
    let page = parts.api.call(page).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    for words in ["ensemble by averaging", "Together <strong>5 of 5</strong> models have rmse"] {
        assert!(String::from_utf8_lossy(&page).contains(words), "the console does not say {words}");
    }
    assert_eq!(
        serde_json::to_value(view.ensemble).unwrap(),
        json!({"method": "averaging", "min_members": 1})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_call_houses_keeps_its_name() {
    let parts = cluster(1, 2);
    let mine = upload(&parts.client, "houses", b"a,b\n1,2\n".to_vec()).await;
    assert_eq!(send(&parts.api, "fit", "").await.status, 200);
    assert_eq!(parts.client.dataset("houses").await.unwrap().id, mine.id);
}

/// A target that follows from three columns, with noise.
fn table(seed: u64, rows: u64) -> (String, Vec<f64>) {
    let (mut csv, mut truth) = (String::from("a,b,c,y\n"), Vec::new());
    for row in 0..rows {
        let [a, b, c, noise] = [0, 1, 2, 3].map(|at| rng::unit(seed, row * 4 + at));
        let y = 4.0 * a + 3.0 * (6.0 * b).sin() + c * c + 2.0 * (noise - 0.5);
        csv += &format!("{a:.4},{b:.4},{c:.4},{y:.4}\n");
        truth.push(y);
    }
    (csv, truth)
}

/// The rows of a table without the target.
fn questions(csv: &str) -> Value {
    let row = |line: &str| {
        let cells: Vec<f64> = line.split(',').map(|cell| cell.parse().unwrap()).collect();
        json!({ "a": cells[0], "b": cells[1], "c": cells[2] })
    };
    csv.lines().skip(1).map(row).collect()
}

fn numbers(answer: &Value) -> Vec<f64> {
    let rows = answer["predictions"].as_array().unwrap();
    rows.iter().map(|row| row["prediction"].as_f64().unwrap()).collect()
}

/// The bytes of each member, by its place among those of the ensemble.
async fn blobs(parts: &Parts, fitted: &Answer) -> Vec<Digest> {
    let training = parts.client.training(fitted.json["training"].as_str().unwrap()).await.unwrap();
    let of = |name: &str| training.models.iter().find(|model| model.name == name).unwrap().digest.unwrap();
    fitted.members().into_iter().map(of).collect()
}

fn lose(parts: &Parts, digest: Digest) -> Vec<u8> {
    let bytes = parts.store.blob(digest).unwrap().expect("it was fitted");
    assert!(parts.store.remove_blob(digest, std::time::Duration::ZERO).unwrap());
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn one_to_four_members_of_five_are_lost_and_the_rest_answers() {
    let parts = cluster(2, 1);
    upload_whole(&parts.client, "t", table(7, 2000).0.into_bytes()).await;
    let rows = questions(&table(8, 50).0);
    let order = json!({"dataset": "t", "target": "y", "holdout": 0.4, "name": "five"});
    let fitted = post(&parts.api, "fit", &order).await;
    assert_eq!((fitted.status, fitted.members().len()), (200, 5), "{}", fitted.json);
    let careful = json!({"dataset": "t", "target": "y", "holdout": 0.4, "name": "careful", "min_members": 3});
    assert_eq!(post(&parts.api, "fit", &careful).await.json["min_members"], 3);
    // What each member says by itself.
    let mut alone = Vec::new();
    for member in fitted.json["members"].as_array().unwrap() {
        let path = format!("/v1/models/{}/predict", member["model"].as_str().unwrap());
        let request = Request::post(path).header("content-type", "application/json");
        let answer = parts.api.call(request.body(json!({ "rows": rows }).to_string().into()).unwrap()).await;
        let bytes = answer.unwrap().into_body().collect().await.unwrap().to_bytes();
        alone.push(numbers(&serde_json::from_slice(&bytes).unwrap()));
    }
    let (all, blobs) = (fitted.members(), blobs(&parts, &fitted).await);
    let mut kept = Vec::new();
    let mut seen = vec![fitted.json["quality"]["rmse"].clone()];
    for (lost, member) in [3, 0, 4, 1].into_iter().enumerate() {
        kept.push(lose(&parts, blobs[member]));
        let gone = &[3, 0, 4, 1][..=lost];
        let left: Vec<usize> = (0..5).filter(|place| !gone.contains(place)).collect();
        let api = newcomer(&parts.db);
        let answer = post(&api, "predict?name=five", &rows).await;
        assert_eq!((answer.status, answer.degraded), (200, Some(format!("{}/5", left.len()))));
        let view = &answer.json;
        assert_eq!((&view["members_used"], &view["members_total"]), (&json!(left.len()), &json!(5)));
        let names: Vec<&str> = left.iter().map(|place| all[*place]).collect();
        assert_eq!(view["members"].as_array().unwrap().iter().map(|m| &m["name"]).collect::<Vec<_>>(), names);
        let mut named: Vec<&str> = view["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["member"].as_str().unwrap())
            .collect();
        named.sort_unstable();
        let mut wanted: Vec<&str> = gone.iter().map(|place| all[*place]).collect();
        wanted.sort_unstable();
        assert_eq!(named, wanted);
        assert_eq!(view["errors"][0]["step"], "load");
        // It is these members that predicted.
        let said = numbers(view);
        for (row, said) in said.iter().enumerate() {
            let mean = left.iter().map(|place| alone[*place][row]).sum::<f64>() / left.len() as f64;
            assert!((said - mean).abs() < 1e-9, "row {row}: {said}, {mean}");
        }
        assert!(measured(&view["quality"], "rmse"));
        assert!(!seen.contains(&view["quality"]["rmse"]), "each subset has a quality of its own");
        seen.push(view["quality"]["rmse"].clone());
        let evaluated = send(&api, "evaluate?name=five", "").await;
        assert_eq!((evaluated.status, &evaluated.json["quality"]), (200, &view["quality"]));
        assert_eq!(evaluated.json["errors"], view["errors"]);
        let strict = post(&api, "evaluate?name=careful", &json!({})).await;
        if left.len() >= 3 {
            assert_eq!(strict.status, 200);
        } else {
            assert_eq!(strict.code(), (503, "too-few-members"));
            assert!(strict.json["detail"].as_str().unwrap().contains(all[3]), "{}", strict.json);
        }
    }
    lose(&parts, blobs[2]);
    let none = newcomer(&parts.db);
    assert_eq!(post(&none, "predict?name=five", &rows).await.code(), (503, "too-few-members"));
    // Who lost members looks for them again, and counts them as soon as they are there.
    parts.store.put_blob(blobs[3], &kept[0]).unwrap();
    let start = std::time::Instant::now();
    let back = loop {
        let answer = post(&none, "predict?name=five", &rows).await;
        if answer.status == 200 {
            break answer;
        }
        assert!(start.elapsed().as_secs() < 20, "{}", answer.json);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    assert_eq!((back.members(), back.degraded.as_deref()), (vec![all[3]], Some("1/5")));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_table_the_quality_is_said_to_be_unknown() {
    let parts = cluster(1, 2);
    upload(&parts.client, "t", table(1, 300).0.into_bytes()).await;
    let order = json!({"dataset": "t", "target": "y", "method": "stacking"});
    let fitted = post(&parts.api, "fit", &order).await;
    assert_eq!(fitted.status, 200, "{}", fitted.json);
    let dataset: Digest = fitted.json["dataset"].as_str().unwrap().parse().unwrap();
    for (key, bytes) in parts.store.records().unwrap() {
        if key != dataset {
            continue;
        }
        let Some(dml::core::Body::Dataset(table)) = dml::core::Record::from_bytes(&bytes).unwrap().body
        else {
            panic!("it is a dataset")
        };
        table.chunks.iter().for_each(|chunk| drop(lose(&parts, chunk.digest)));
    }
    let answer = post(&newcomer(&parts.db), "predict", &json!([{"a": 0.5, "b": 0.5, "c": 0.5}])).await;
    assert_eq!((answer.status, answer.degraded), (200, None), "all members answer");
    assert_eq!(answer.json["quality"], Value::Null);
    let error = &answer.json["errors"][0];
    assert_eq!((&error["step"], &error["member"]), (&json!("evaluate"), &Value::Null));
    assert!(error["why"].as_str().unwrap().contains("count alike"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_method_measures_itself_and_all_workers_say_the_same() {
    let parts = cluster(2, 2);
    upload(&parts.client, "penguins", penguins()).await;
    upload(&parts.client, "t", table(3, 600).0.into_bytes()).await;
    let bird = json!([{"island": "Biscoe", "bill_length_mm": 50, "flipper_length_mm": 225, "sex": "male"}]);
    let number = json!({"a": 0.2, "b": 0.1, "c": 0.9});
    let mut said = Vec::new();
    for method in ["averaging", "voting", "stacking", "bagging"] {
        for (dataset, target, metric, row) in
            [("penguins", "species", "accuracy", &bird), ("t", "y", "rmse", &number)]
        {
            let name = format!("{dataset}-{method}");
            let order =
                json!({"dataset": dataset, "target": target, "method": method, "name": name, "seed": 4});
            let fitted = post(&parts.api, "fit", &order).await;
            assert_eq!((fitted.status, &fitted.degraded), (200, &None), "{}", fitted.json);
            assert!(measured(&fitted.json["quality"], metric), "{}", fitted.json);
            let weights = fitted.json["members"].as_array().unwrap().iter();
            let weights: Vec<f64> = weights.map(|member| member["weight"].as_f64().unwrap()).collect();
            assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{weights:?}");
            assert_eq!(weights.iter().any(|weight| *weight != 0.2), method == "stacking", "{weights:?}");
            let path = format!("predict?name={name}");
            let here = post(&parts.api, &path, row).await;
            let there = post(&newcomer(&parts.db), &path, row).await;
            assert_eq!((here.status, &here.json), (200, &there.json), "{}", here.json);
            said.push(here.json["predictions"][0].clone());
        }
    }
    let species: Vec<&Value> = said.iter().filter(|said| said["prediction"].is_string()).collect();
    assert!(species.len() == 4 && species.iter().all(|said| said["prediction"] == "Gentoo"), "{species:?}");
    let votes = species[1]["probability_Gentoo"].as_f64().unwrap() * 5.0;
    assert!((votes - votes.round()).abs() < 1e-9, "shares of five votes: {votes}");
    // Members of a bagged ensemble learn from rows of their own.
    let bagged = parts.client.training("t-bagging").await.unwrap();
    let mut digests: Vec<Digest> = bagged.models.iter().map(|model| model.digest.unwrap()).collect();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!((digests.len(), bagged.models[0].kind.as_str()), (5, "decision_tree"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_cannot_be_fitted_is_a_member_less() {
    let parts = cluster(1, 2);
    // A logarithm of the mean fits no negative numbers.
    upload(&parts.client, "t", table(5, 400).0.replace("y\n", "y\n0.1,0.1,0.1,-5\n").into_bytes()).await;
    let order = json!({"dataset": "t", "target": "y", "models": [{"kind": "ridge"}, {"kind": "glm"}, {"kind": "lasso"}]});
    let fitted = post(&parts.api, "fit", &order).await;
    assert_eq!((fitted.status, fitted.degraded.as_deref()), (200, Some("2/3")), "{}", fitted.json);
    assert_eq!(fitted.members(), ["ridge", "lasso"]);
    let mut strict = order.clone();
    (strict["min_members"], strict["name"]) = (json!(3), json!("strict"));
    for path in ["fit", "evaluate?name=strict"] {
        assert_eq!(
            post(&parts.api, path, &strict).await.code(),
            (409, "too-few-members"),
            "no use in trying again"
        );
    }
    let error = &fitted.json["errors"][0];
    assert_eq!((&error["member"], &error["step"]), (&json!("glm"), &json!("fit")));
    assert!(measured(&fitted.json["quality"], "rmse"));
}

#[tokio::test(flavor = "multi_thread")]
async fn fitting_is_not_waited_for_longer_than_is_said() {
    let parts = cluster(0, 1);
    let answer = send(&parts.api, "fit?wait=300ms", "").await;
    assert_eq!(answer.code(), (503, "too-few-members"), "{}", answer.json);
    assert_eq!(send(&parts.api, "evaluate", "").await.code(), (409, "not-fitted"));
    parts.work();
    let fitted = send(&parts.api, "fit", "").await;
    assert_eq!((fitted.status, fitted.members().len()), (200, 5), "what was begun is taken up");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_cannot_be() {
    let parts = cluster(1, 2);
    upload(&parts.client, "t", table(1, 100).0.into_bytes()).await;
    let with = |more: Value| {
        let mut order = json!({"dataset": "t", "target": "y"});
        order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        order
    };
    let ridge = json!({"kind": "ridge"});
    for (status, code, order) in [
        (422, "bad-ensemble", json!({"dataset": "t"})),
        (404, "not-found", json!({"dataset": "nowhere", "target": "y"})),
        (422, "target-missing", json!({"dataset": "t", "target": "z"})),
        (422, "bad-field", with(json!({"membres": 3}))),
        (422, "bad-field", with(json!({"method": "boosting"}))),
        (422, "bad-ensemble", with(json!({"models": [ridge]}))),
        (422, "bad-ensemble", with(json!({"members": 1}))),
        (422, "bad-ensemble", with(json!({"members": 101, "method": "bagging"}))),
        (422, "bad-ensemble", with(json!({"min_members": 6}))),
        (422, "bad-ensemble", with(json!({"min_members": 0}))),
        (422, "bad-holdout", with(json!({"holdout": 2}))),
        (422, "model-twice", with(json!({"models": [ridge, ridge]}))),
        (422, "kind-unknown", with(json!({"models": [ridge, {"kind": "perceptron"}]}))),
        (400, "bad-name", with(json!({"name": "a/b"}))),
        (400, "bad-json", json!("{")),
    ] {
        let body = if order == json!("{") { "{".into() } else { order.to_string() };
        assert_eq!(send(&parts.api, "fit", body).await.code(), (status, code), "{order}");
    }
    let folds =
        json!({"dataset": "t", "target": "y", "validation": {"folds": 3}, "ensemble": {"method": "voting"}});
    let request = Request::post("/v1/trainings").header("content-type", "application/json");
    let answer = parts.api.call(request.body(folds.to_string().into()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 422, "no rows would be left to judge by");

    let plain = crate::common::training("t", "y");
    let view = parts.client.train(&plain).await.unwrap();
    parts.client.watch(&view.id.to_string(), |_| ()).await.unwrap();
    assert_eq!(send(&parts.api, "evaluate?name=t-y", "").await.code(), (409, "not-an-ensemble"));
    assert_eq!(send(&parts.api, "fit", with(json!({"members": 2})).to_string()).await.status, 200);
    for (code, body) in [
        ((400, "bad-json"), "{"),
        ((400, "bad-json"), "7"),
        ((400, "bad-json"), "[7]"),
        ((422, "unknown-column"), "{\"d\": 1}"),
        ((422, "wrong-type"), "{\"a\": \"many\"}"),
        ((200, ""), "[]"),
    ] {
        assert_eq!(send(&parts.api, "predict", body).await.code(), code, "{body}");
    }
    assert_eq!(send(&parts.api, "predict?nom=x", "[]").await.code(), (400, "bad-query"));
}

/// How often the quality that is told of the four to one members that are left holds for rows that nobody has seen: an
/// interval of 95 % is to hold for about 19 tables of 20.
#[tokio::test(flavor = "multi_thread")]
async fn announced_intervals_hold_for_what_is_left() {
    const TABLES: u64 = 20;
    let parts = cluster(2, 1);
    let mut held = [0; 4];
    for seed in 0..TABLES {
        let (rows, (fresh, truth)) = (table(seed, 800).0, table(1000 + seed, 2000));
        upload_whole(&parts.client, &format!("t{seed}"), rows.into_bytes()).await;
        let order = json!({"dataset": format!("t{seed}"), "target": "y", "holdout": 0.4});
        let fitted = post(&parts.api, "fit", &order).await;
        for (blob, held) in blobs(&parts, &fitted).await.into_iter().zip(&mut held) {
            lose(&parts, blob);
            let answer = post(&newcomer(&parts.db), "predict", &questions(&fresh)).await.json;
            let each = numbers(&answer).into_iter().zip(&truth);
            let square: f64 = each.map(|(said, truth)| (said - truth) * (said - truth)).sum();
            let rmse = (square / truth.len() as f64).sqrt();
            let interval = &answer["quality"]["interval"]["rmse"];
            let (low, high) = (interval[0].as_f64().unwrap(), interval[1].as_f64().unwrap());
            *held += u32::from(low <= rmse && rmse <= high);
        }
    }
    assert!(held.iter().all(|held| (17..=20).contains(held)), "{held:?} of {TABLES}");
}
