//! The console in the browser: every page of a life with DML, as a browser without a script walks it.

use axum::{Router, body::Body};
use dml::Peer;
use http_body_util::BodyExt;
use hyper::{Request, header};

use crate::common::{cluster, penguins};

const FORM: &str = "application/x-www-form-urlencoded";

struct Browser(Peer);

struct Page {
    status: u16,
    /// Where it leads to.
    location: String,
    policy: String,
    text: String,
}

impl Browser {
    async fn send(&self, method: &str, path: &str, kind: &str, body: Vec<u8>) -> Page {
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, kind);
        let answer = self.0.call(request.body(Body::from(body)).unwrap()).await.unwrap();
        let head = |name: &str| {
            let value = answer.headers().get(name).map(|value| value.to_str().unwrap().to_string());
            value.unwrap_or_default()
        };
        let (status, location, policy) =
            (answer.status().as_u16(), head("location"), head("content-security-policy"));
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        Page { status, location, policy, text: String::from_utf8_lossy(&body).into_owned() }
    }

    async fn get(&self, path: &str) -> Page {
        self.send("GET", path, "", Vec::new()).await
    }

    async fn post(&self, path: &str, fields: &str) -> Page {
        self.send("POST", path, FORM, fields.into()).await
    }

    /// Uploads a file by the form, and gives where the dataset is.
    async fn upload(&self, name: &str, content: &[u8]) -> Page {
        let mut form = format!(
            "--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\ncontent-type: text/csv\r\n\r\n"
        )
        .into_bytes();
        form.extend_from_slice(content);
        form.extend_from_slice(b"\r\n--x--\r\n");
        self.send("POST", "/datasets", "multipart/form-data; boundary=x", form).await
    }

    /// A page that says `word` sooner or later.
    async fn until(&self, path: &str, word: &str) -> Page {
        for _ in 0..600 {
            let page = self.get(path).await;
            if page.text.contains(word) {
                return page;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("{path} never says {word}: {}", self.get(path).await.text);
    }
}

/// The first link on a page that begins so.
fn link(page: &Page, start: &str) -> String {
    let start = format!("href=\"{start}");
    let from = page.text.find(&start).unwrap_or_else(|| panic!("no {start} in {}", page.text)) + 6;
    let len = page.text[from..].find('"').unwrap();
    format!("/{}", page.text[from..from + len].replace("&amp;", "&"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_in_the_browser() {
    let parts = cluster(1, 1);
    let browser = Browser(parts.api.clone());
    let empty = browser.get("/").await;
    assert!(empty.status == 200 && empty.text.contains("Nothing is here yet"), "{}", empty.text);
    assert!(empty.policy.contains("default-src 'none'"), "{}", empty.policy);

    let uploaded = browser.upload("penguins.csv", &penguins()).await;
    assert_eq!(uploaded.status, 303, "{}", uploaded.text);
    let dataset = browser.get(&uploaded.location).await;
    for words in ["<h1>penguins</h1>", "344 rows", "bill_length_mm", "Gentoo", "1 of 3 nodes"] {
        assert!(dataset.text.contains(words), "no '{words}' in {}", dataset.text);
    }
    let choice = dataset.text.match_indices("Predict this").count();
    assert_eq!(choice, 8, "any column can be the target");

    let id = uploaded.location.rsplit('/').next().unwrap().to_string();
    let form = browser.get(&format!("/train?dataset={id}&target=species")).await;
    assert!(form.text.contains("as <strong>classification</strong>"), "{}", form.text);
    assert!(form.text.contains("value=\"gaussian_nb\" checked") && !form.text.contains("value=\"lasso\""));

    let fields = format!("dataset={id}&target=species&task=classification&judge=0.25&seed=3");
    let none = browser.post("/train", &fields).await;
    assert!(none.status == 422 && none.text.contains("tick one at least"), "{}", none.text);
    let wrong = format!("{fields}&kind=logistic&logistic.C=-1");
    let wrong = browser.post("/train", &wrong).await;
    assert!(wrong.status == 422 && wrong.text.contains("C of logistic"), "{}", wrong.text);
    let begun = browser.post("/train", &format!("{fields}&kind=logistic&kind=gradient_boosting")).await;
    assert_eq!(begun.status, 303, "{}", begun.text);

    let form = browser.get(&format!("/tune?dataset={id}&target=species")).await;
    assert!(form.text.contains("value=\"gradient_boosting\" checked"), "{}", form.text);
    let wrong = browser.post("/tune", &format!("{fields}&kind=logistic&logistic.C=1..x")).await;
    assert!(
        wrong.status == 422 && wrong.text.contains("C of logistic: '1..x' is no range"),
        "{}",
        wrong.text
    );
    let search =
        format!("{fields}&kind=logistic&logistic.C=log:0.1..10&strategy=random&trials=3&name=sought");
    let searched = browser.post("/tune", &search).await;
    assert_eq!(searched.status, 303, "{}", searched.text);
    let searched = browser.until(&searched.location, "class=\"badge good\">done").await;
    assert!(searched.text.contains("3 of 3 trials of logistic by random"), "{}", searched.text);

    let training = browser.until(&begun.location, "class=\"badge good\">done").await;
    assert!(training.text.contains("penguins-species") && training.text.contains("Leaderboard"));
    let training = browser.until(&begun.location, "95 % interval").await;
    let model = link(&training, "models/");
    let shown = browser.until(&model, "Which columns matter").await;
    for words in ["Download as ONNX", "log_loss", "Try it", "value=\"39.1\""] {
        assert!(shown.text.contains(words), "no '{words}' in {}", shown.text);
    }
    let plot = browser.get(&format!("{model}/plot.svg")).await;
    assert!(plot.status == 200 && plot.text.starts_with("<svg"), "{}", plot.text);

    let row = "island=Biscoe&bill_length_mm=50&bill_depth_mm=15&flipper_length_mm=225&body_mass_g=5600&sex=male&year=2008";
    let said = browser.post(&model, row).await;
    assert!(said.text.contains("<td>Gentoo</td>"), "{}", said.text);
    let said = browser.post(&model, "bill_length_mm=long").await;
    assert!(
        said.text.contains("&#39;long&#39;") || said.text.contains("'long' is no float"),
        "{}",
        said.text
    );

    let model_id = model.rsplit('/').next().unwrap();
    let predicted = browser.post("/predictions", &format!("model={model_id}&dataset={id}")).await;
    assert_eq!(predicted.status, 303, "{}", predicted.text);
    browser.until(&predicted.location, "prediction,").await;

    let new = dml::view::NewStudy { trials: Some(4), ..dml::view::NewStudy::new("penguins", "species") };
    let study = parts.client.tune(&new).await.unwrap().id;
    let page = browser.until(&format!("/studies/{study}"), "The best of them are kept").await;
    assert!(page.text.contains("log:0.02..0.3"), "{}", page.text);
    assert!(page.text.contains("Best trials") && page.text.contains("learning_rate"), "{}", page.text);
    let plot = browser.get(&format!("/studies/{study}/plot.svg")).await;
    assert!(plot.status == 200 && plot.text.contains("class=\"trial\""), "{}", plot.text);

    for (page, words) in [
        ("/studies", "penguins-species-tuned"),
        ("/", "penguins-species"),
        ("/datasets", "penguins"),
        ("/trainings", "penguins-species"),
        ("/models", "gradient_boosting"),
        ("/predictions", "prediction"),
        ("/cluster", "db node"),
        ("/jobs", "of work done twice"),
        ("/logs", "does not keep its log"),
        ("/console.css", "prefers-color-scheme"),
        ("/console.js", "EventSource"),
    ] {
        // Not every model need be finished yet.
        assert_eq!(browser.until(page, words).await.status, 200, "{page}");
    }
    assert_eq!(browser.post(&format!("/studies/{study}/delete"), "").await.status, 303);
    assert_eq!(browser.get(&format!("/studies/{study}/plot.svg")).await.status, 404);
    assert_eq!(browser.post(&format!("{}/delete", begun.location), "").await.status, 303);
    assert_eq!(browser.get(&begun.location).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_wrote_stays_text() {
    let parts = cluster(1, 1);
    let browser = Browser(parts.api.clone());
    let script = "<script>alert(1)</script>";
    let rows: String = (0..20).map(|n| format!("{n},{script}\n")).collect();
    let uploaded = browser.upload("x.csv", format!("{script},y\n{rows}").as_bytes()).await;
    assert_eq!(uploaded.status, 303, "{}", uploaded.text);
    let id = uploaded.location.rsplit('/').next().unwrap();
    let (target, kind) = ("%3Cscript%3Ealert%281%29%3C%2Fscript%3E", "%3Cscript%3E");
    for page in [
        browser.get(&uploaded.location).await,
        browser.get(&format!("/train?dataset={id}&target={target}")).await,
        browser.post("/train", &format!("dataset={id}&target={target}&kind={kind}&name={target}")).await,
        browser.get(&format!("/datasets/{target}")).await,
    ] {
        assert!(page.text.contains("&lt;script"), "{}", page.text);
        assert!(!page.text.contains(script), "{}", page.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_can_live_under_a_path() {
    let parts = cluster(1, 1);
    let router = Router::new().nest("/ml", parts.router());
    let browser = Browser(Peer::router(router));
    let page = browser.get("/ml/datasets").await;
    assert!(page.text.contains("<base href=\"/ml/\">"), "{}", page.text);
}

/// What is waiting is shown before a worker takes it, and who has what while it is worked on.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_shown_while_they_last() {
    let parts = cluster(0, 1);
    let browser = Browser(parts.api.clone());
    assert!(browser.get("/jobs").await.text.contains("Nothing is waiting"));
    crate::common::upload(&parts.client, "penguins", penguins()).await;
    let training = parts.client.train(&crate::common::training("penguins", "species")).await.unwrap();
    let waiting = browser.get("/jobs").await.text;
    assert!(waiting.contains("penguins-species") && waiting.contains("No worker has a piece"), "{waiting}");
    let claim = dml::core::node::Claim {
        worker: "silent".into(),
        slots: 1,
        capacity: 1,
        have: Vec::new(),
        wait_ms: 0,
        address: None,
    };
    let link = dml::net::link::Link::new([Peer::router(parts.db.router())]);
    link.ask(&dml::core::node::Request::Claim(claim)).await.unwrap();
    let held = browser.get("/jobs").await.text;
    assert!(held.contains("<td>silent</td>") && held.contains("preparation or evaluation"), "{held}");
    parts.work();
    parts.client.watch(&training.id.to_string(), |_| ()).await.unwrap();
    let over = browser.get("/jobs").await.text;
    assert!(over.contains("Nothing is waiting") && !over.contains("<strong>0</strong> results"), "{over}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_shown_by_how_bad_it_is() {
    use dml::net::{
        cluster,
        logs::{Level, Logs},
    };
    let logs = std::sync::Arc::new(Logs::default());
    let options = cluster::Options { logs: Some(logs.clone()), ..Default::default() };
    let cluster = dml::Cluster::start(options).unwrap();
    logs.keep(Level::Info, "dml_net", "a node has come".into());
    logs.keep(Level::Error, "dml_store", "<b>the disk is full</b>".into());
    let browser = Browser(Peer::router(cluster.workers()[0].router()));
    let all = browser.get("/logs").await.text;
    assert!(all.contains("a node has come") && all.contains("&lt;b&gt;the disk is full"), "{all}");
    let bad = browser.get("/logs?level=error").await.text;
    assert!(!bad.contains("a node has come") && bad.contains("the disk is full"), "{bad}");
    let lines = cluster.client().logs(Level::Info, 1).await.unwrap();
    assert_eq!(lines.len(), 1, "as many as asked for");
    assert_eq!(browser.get("/v1/logs?level=loud").await.status, 400);
    cluster.stop().await;
}
