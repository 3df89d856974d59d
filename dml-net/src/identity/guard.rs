//! Who may ask a db node for what, once it shows who it is itself: nodes of its cluster, and of them only those that it is
//! for. How it is may be asked by anybody.

use axum::{
    Extension,
    extract::{Request, State},
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{Caller, Party, Revoked, join};
use crate::problem::Problem;

/// What db nodes alone say to each other.
const DB_ONLY: [&str; 2] = [crate::db::LETTERS, crate::membership::PATH];

/// What anybody may ask.
const OPEN: [&str; 3] = ["/healthz", "/readyz", join::PATH];

/// Lets nodes of the cluster in, each to what it is for.
pub(crate) async fn nodes_only(
    State(revoked): State<Revoked>,
    caller: Option<Extension<Caller>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let party = caller.and_then(|Extension(Caller(party))| party);
    if !revoked.admits(party) {
        return refused(party);
    }
    let may = match party {
        Some(Party::Worker(_)) => !DB_ONLY.contains(&path),
        // So that programs that watch the cluster can ask every node for its metrics.
        Some(Party::Admin(_)) => path == crate::metrics::PATH,
        Some(Party::Db(_)) => true,
        None => false,
    };
    if may || OPEN.contains(&path) {
        return next.run(request).await;
    }
    let who = party.map_or_else(|| "somebody without a certificate".into(), |party| party.to_string());
    let detail = format!("{who} may not ask a db node for {path}: users ask a worker");
    Problem::new(StatusCode::FORBIDDEN, "not-a-node", detail).into_response()
}

/// What somebody is told whose certificate was revoked.
pub(crate) fn refused(party: Option<Party>) -> Response {
    let who = party.map_or_else(|| "nobody".into(), |party| party.name());
    let detail = format!("the certificate of {who} was revoked: ask an administrator for another one");
    Problem::new(StatusCode::FORBIDDEN, "revoked", detail).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::Body;
    use dml_core::{
        Member, NodeId,
        node::{Letter, Message},
        swim::{self, Effect, Event, Swim},
    };
    use hyper::{Method, header};
    use tower::ServiceExt;

    use super::*;
    use crate::{
        db::{self, Db, Network},
        identity::ClusterKey,
        peer::InProcess,
    };

    fn member(n: u8) -> Member {
        Member { id: NodeId::new(n.into()), address: ([10, 0, 0, n], 7301).into(), generation: 1 }
    }

    fn letter(from: u8) -> Vec<u8> {
        let message = Message::RowWanted { since: None };
        let (from, to) = (member(from), member(9));
        let letter = Letter { v: 1, from: from.id, generation: 1, to: to.id, life: 1, floor: 0, message };
        crate::db::pack(&[letter]).to_vec()
    }

    /// The first datagram of a node that greets another.
    fn datagram(from: u8) -> Vec<u8> {
        let mut swim = Swim::new(member(from), swim::Settings::default(), 1, []);
        let effects = swim.handle(std::time::Duration::ZERO, Event::Greeted(member(9)));
        let sent = effects.into_iter().find_map(|effect| {
            if let Effect::Send { datagram, .. } = effect { Some(datagram) } else { None }
        });
        sent.expect("it answers a greeting")
    }

    #[tokio::test]
    async fn each_party_may_ask_for_what_it_is_for_and_speaks_in_its_own_name() {
        let key = ClusterKey::generate().expect("the system has randomness");
        let identity = key.certify(Party::Db(NodeId::new(9)), &[]).expect("the key is good");
        let here = InProcess::default();
        let network = Network::new(move || here.dial(), member(9).address, Vec::new());
        let options = db::Options { network: Some(network), identity: Some(identity), ..Default::default() };
        let router =
            Db::start(Arc::new(dml_store::MemoryStore::default()), options).expect("memory").router();
        let (admin, worker) = (Some(Party::admin()), Some(Party::worker()));
        let db = |n: u8| Some(Party::Db(member(n).id));
        for (caller, path, body, status) in [
            (None, "/healthz", None, 200),
            (None, "/v1/nodes", None, 403),
            (None, "/v1/node", None, 403),
            (None, "/v1/letters", Some(letter(1)), 403),
            (admin, "/v1/nodes", None, 403),
            (admin, "/metrics", None, 200),
            (None, "/metrics", None, 403),
            (worker, "/v1/nodes", None, 200),
            (worker, "/v1/node", None, 200),
            (worker, "/v1/letters", Some(letter(1)), 403),
            (worker, "/v1/swim", Some(datagram(1)), 403),
            (db(1), "/v1/nodes", None, 200),
            (db(1), "/v1/letters", Some(letter(1)), 204),
            (db(1), "/v1/letters", Some(letter(2)), 403),
            (db(1), "/v1/swim", Some(datagram(1)), 204),
            (db(1), "/v1/swim", Some(datagram(2)), 403),
        ] {
            let method = if body.is_some() { Method::POST } else { Method::GET };
            let request = Request::builder().method(method).uri(path).extension(Caller(caller));
            let request = request.header(header::CONTENT_TYPE, crate::db::LETTERS_FORMAT);
            let request = request.body(body.map_or_else(Body::empty, Body::from)).expect("a plain path");
            let answer = router.clone().oneshot(request).await.expect("it answers");
            assert_eq!(answer.status(), status, "{caller:?} {path}");
        }
        // One that is not served over TLS, by mistake, answers nobody.
        let request = Request::get("/v1/nodes").body(Body::empty()).expect("a plain path");
        assert_eq!(router.oneshot(request).await.expect("it answers").status(), 403);
    }
}
