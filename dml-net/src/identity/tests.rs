use axum::{Extension, Router, body::Body, routing::get};
use hyper::{Request, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{Peer, peer::PeerError, serve::Server};

fn key() -> ClusterKey {
    ClusterKey::generate().expect("the system has randomness")
}

fn certified(key: &ClusterKey, party: Party) -> Identity {
    key.certify(party, &[]).expect("the key is good")
}

#[test]
fn what_is_written_is_read() {
    let key = key();
    let id = NodeId::new(42);
    for party in [Party::Db(id), Party::worker(), Party::admin()] {
        assert_eq!(party.to_string().parse::<Party>().ok(), Some(party));
        let identity = certified(&key, party);
        let Ok(Credentials::Own(read)) = Credentials::from_pem(identity.to_pem().as_bytes()) else {
            panic!("{party} is not read")
        };
        assert_eq!((read.party(), read.cluster()), (party, key.cluster()));
    }
    // The key of a cluster that was read makes members of the same cluster.
    let Ok(Credentials::Key(read)) = Credentials::from_pem(key.to_pem().as_bytes()) else { panic!("no key") };
    assert_eq!(certified(&read, Party::worker()).cluster(), key.cluster());
    let three = key.certificate_pem().repeat(2) + &key.to_pem();
    for bad in ["", "hello", &key.certificate_pem(), &three] {
        assert!(Credentials::from_pem(bad.as_bytes()).is_err(), "{bad}");
    }
}

/// Serves who is asking, as this party.
async fn served(identity: &Identity) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let who = async |Extension(Caller(party)): Extension<Caller>| {
        party.map_or_else(|| "nobody".into(), |party| party.to_string())
    };
    let tls = Some(identity.accept().expect("a certificate"));
    let server = Server { tls, ..Server::default() };
    tokio::spawn(server.serve(listener, Router::new().route("/", get(who)), std::future::pending()));
    address
}

async fn ask(peer: Peer) -> Result<String, PeerError> {
    let answer = peer.call(Request::get("/").body(Body::empty()).expect("a plain path")).await?;
    assert_eq!(answer.status(), StatusCode::OK);
    let bytes = axum::body::to_bytes(answer.into_body(), 1000)
        .await
        .map_err(|error| PeerError::Silent { address: String::new(), why: error.to_string() })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn those_of_one_cluster_know_each_other_and_nobody_else() {
    let (ours, theirs) = (key(), key());
    let db = certified(&ours, Party::Db(NodeId::new(1)));
    let address = served(&db).await;
    for party in [Party::Db(NodeId::new(2)), Party::worker(), Party::admin()] {
        let dial = certified(&ours, party).dial(Role::Db).expect("a certificate");
        assert_eq!(ask(dial.peer(address)).await.expect("an answer"), party.to_string());
    }
    let trust = Trust::cluster(ours.certificate_pem().as_bytes()).expect("a certificate");
    assert_eq!(ask(peer::https(&trust, Role::Db).peer(address)).await.expect("an answer"), "nobody");

    let refused = async |dial: Dial| ask(dial.peer(address)).await.expect_err("it is refused").to_string();
    let worker = certified(&ours, Party::worker());
    let why = refused(worker.dial(Role::Worker).expect("a certificate")).await;
    assert!(why.contains("its certificate is not that of such a node"), "this is no worker: {why}");
    let foreigner = certified(&theirs, Party::worker());
    let why = refused(foreigner.dial(Role::Db).expect("a certificate")).await;
    assert!(
        why.contains("its certificate is not that of such a node"),
        "another cluster's node is met: {why}"
    );
    // A stranger who would trust us is not trusted.
    let Parts { ca, .. } = &*db.0;
    let Parts { certificate, key, .. } = &*foreigner.0;
    let stranger =
        Identity::new(certificate.clone(), ca.clone(), key.clone_key()).expect("it is well formed");
    refused(stranger.dial(Role::Db).expect("a certificate")).await;
    assert!(Peer::https(&format!("http://{address}"), &trust).is_err(), "nothing is asked without TLS");
}

#[tokio::test]
async fn who_does_not_speak_tls_is_told() {
    let address = served(&certified(&key(), Party::worker())).await;
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("it reads");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 400");
    // The other way round: a client that speaks TLS to a node that does not.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let plain = listener.local_addr().expect("it is bound");
    tokio::spawn(crate::serve::serve(listener, Router::new(), std::future::pending()));
    let dial = certified(&key(), Party::admin()).dial(Role::Worker).expect("a certificate");
    let why = ask(dial.peer(plain)).await.expect_err("it cannot be").to_string();
    assert!(why.contains("is it a node without --identity?"), "{why}");
}
