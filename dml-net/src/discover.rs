//! Where nodes are: discovery gives addresses, nothing more. Whether a node is there, and whether it is this one itself,
//! is found out by asking.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::{task::JoinHandle, time::Instant};

use crate::addresses::{Addresses, plausible};

/// A source of addresses.
#[async_trait]
pub trait Discover: Send + Sync + 'static {
    /// The addresses known now; none while the source fails.
    async fn addresses(&self) -> Vec<SocketAddr>;

    /// Those that are known without asking anybody: they go into the address cache at the start.
    fn fixed(&self) -> &[SocketAddr] {
        &[]
    }
}

/// Addresses that were written down.
pub struct Fixed(pub Vec<SocketAddr>);

#[async_trait]
impl Discover for Fixed {
    async fn addresses(&self) -> Vec<SocketAddr> {
        self.0.clone()
    }

    fn fixed(&self) -> &[SocketAddr] {
        &self.0
    }
}

/// All addresses behind a name, by the system's resolver.
pub struct Dns {
    name: String,
    port: u16,
    /// The lookup under way. One that hangs is waited for again and never doubled.
    lookup: tokio::sync::Mutex<Option<JoinHandle<Vec<SocketAddr>>>>,
}

/// How long the resolver may take.
const PATIENCE: Duration = Duration::from_secs(2);

impl Dns {
    /// The nodes behind this name, on this port, which DNS does not tell.
    pub fn new(name: impl Into<String>, port: u16) -> Self {
        Self { name: name.into(), port, lookup: Default::default() }
    }
}

#[async_trait]
impl Discover for Dns {
    async fn addresses(&self) -> Vec<SocketAddr> {
        let mut under_way = self.lookup.lock().await;
        let lookup = under_way.get_or_insert_with(|| tokio::spawn(look_up(self.name.clone(), self.port)));
        let Ok(found) = tokio::time::timeout(PATIENCE, lookup).await else { return Vec::new() };
        *under_way = None;
        found.unwrap_or_default()
    }
}

async fn look_up(name: String, port: u16) -> Vec<SocketAddr> {
    let found = tokio::net::lookup_host((name.as_str(), port)).await;
    let mut addresses: Vec<SocketAddr> = match found {
        Ok(found) => found.collect(),
        Err(error) => {
            tracing::debug!(%name, %error, "the name is not known");
            Vec::new()
        }
    };
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The source for what a user wrote after `--join`: `ADDRESS:PORT`, `NAME:PORT`, or either without a port.
pub fn source(join: &str, default_port: u16) -> Box<dyn Discover> {
    let join = join.trim().trim_start_matches("http://").trim_end_matches('/');
    if let Ok(address) = join.parse::<SocketAddr>() {
        return Box::new(Fixed(vec![address]));
    }
    if let Ok(ip) = join.trim_matches(['[', ']']).parse() {
        return Box::new(Fixed(vec![SocketAddr::new(ip, default_port)]));
    }
    let (name, port) = match join.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().unwrap_or(default_port)),
        None => (join, default_port),
    };
    Box::new(Dns::new(name, port))
}

/// Keeps the bytes of the address cache. It is called where it may block.
pub type Save = Box<dyn Fn(&[u8]) -> std::io::Result<()> + Send + Sync>;

/// All sources of addresses and the cache behind them; cheap to clone.
#[derive(Clone)]
pub struct Discovery {
    shared: Arc<Shared>,
}

struct Shared {
    sources: Vec<Box<dyn Discover>>,
    save: Option<Arc<Save>>,
    start: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cache: Addresses,
    /// What the sources said last.
    found: Vec<SocketAddr>,
    /// When that was something new, or a source failed.
    unrest: Option<Duration>,
    /// The addresses at which this node found itself, and when.
    own: BTreeMap<SocketAddr, Duration>,
}

/// How often the sources are asked; and how often after some quiet time.
const OFTEN: Duration = Duration::from_secs(5);
const SELDOM: Duration = Duration::from_secs(10);

/// How long nothing must have changed for that.
const QUIET: Duration = Duration::from_secs(60);

/// An address of this node may be that of another one later: after so long it is asked again.
const OWN: Duration = Duration::from_secs(60);

impl Discovery {
    /// Discovery by these sources; the cache is forgotten when the process ends.
    pub fn new(sources: Vec<Box<dyn Discover>>) -> Self {
        Self::start(sources, Addresses::default(), None)
    }

    /// Discovery by these sources, with the cache that was saved and a way to save it. A cache that cannot be used is
    /// ignored: it will be filled anew.
    pub fn with_cache(sources: Vec<Box<dyn Discover>>, saved: Option<&[u8]>, save: Save) -> Self {
        let mut cache = Addresses::default();
        if let Some(bytes) = saved
            && let Err(error) = cache.load(bytes)
        {
            tracing::warn!(%error, "the saved addresses of other nodes are ignored");
        }
        Self::start(sources, cache, Some(Arc::new(save)))
    }

    fn start(sources: Vec<Box<dyn Discover>>, mut cache: Addresses, save: Option<Arc<Save>>) -> Self {
        sources.iter().flat_map(|source| source.fixed()).for_each(|address| cache.add(*address));
        let state = Mutex::new(State { cache, ..State::default() });
        Self { shared: Arc::new(Shared { sources, save, start: Instant::now(), state }) }
    }

    /// Asks the sources, and gives the addresses to try now: those that were found, and the cached ones too if a source
    /// fails or if no node answers where one was found. Saves what is new. Takes two seconds at most.
    pub async fn refresh(&self) -> Vec<SocketAddr> {
        let answers = join_all(self.shared.sources.iter().map(|source| source.addresses())).await;
        let failing = answers.iter().any(Vec::is_empty);
        let mut found: Vec<SocketAddr> =
            answers.into_iter().flatten().filter(|address| plausible(*address)).collect();
        found.sort_unstable();
        found.dedup();
        self.save();
        let now = self.shared.start.elapsed();
        let mut state = self.lock();
        if failing || state.found != found {
            state.unrest = Some(now);
        }
        state.found.clone_from(&found);
        if failing || !found.iter().any(|address| state.cache.answers(*address)) {
            found.extend(state.cache.iter());
            found.sort_unstable();
            found.dedup();
        }
        state.own.retain(|_, since| now < *since + OWN);
        found.retain(|address| !state.own.contains_key(address));
        found
    }

    /// How long to wait before the next [`Discovery::refresh`].
    pub fn pause(&self) -> Duration {
        let now = self.shared.start.elapsed();
        let restless = self.lock().unrest.is_none_or(|since| now < since + QUIET);
        if restless { OFTEN } else { SELDOM }
    }

    /// A node answered there.
    pub fn answered(&self, address: SocketAddr) {
        let now = self.shared.start.elapsed();
        self.lock().cache.answered(address, now);
    }

    /// No node answered there.
    pub fn failed(&self, address: SocketAddr) {
        let now = self.shared.start.elapsed();
        self.lock().cache.failed(address, now);
    }

    /// This node itself answered there.
    pub fn itself(&self, address: SocketAddr) {
        let now = self.shared.start.elapsed();
        let mut state = self.lock();
        state.cache.remove(address);
        state.own.insert(address, now);
    }

    /// Saves the cache if it has changed, without waiting for the disk.
    fn save(&self) {
        let Some(save) = &self.shared.save else { return };
        let Some(bytes) = self.lock().cache.unsaved() else { return };
        let (save, shared) = (save.clone(), self.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = save(&bytes) {
                tracing::warn!(%error, "the addresses of other nodes could not be saved");
                shared.lock().cache.not_saved();
            }
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().expect("nobody panics while holding it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u8) -> SocketAddr {
        ([10, 0, 0, n], 7301).into()
    }

    /// A source whose answer can be changed.
    #[derive(Clone, Default)]
    struct Moody(Arc<Mutex<Vec<SocketAddr>>>);

    impl Moody {
        fn say(&self, addresses: &[SocketAddr]) {
            *self.0.lock().expect("no panic") = addresses.to_vec();
        }
    }

    #[async_trait]
    impl Discover for Moody {
        async fn addresses(&self) -> Vec<SocketAddr> {
            self.0.lock().expect("no panic").clone()
        }
    }

    #[tokio::test]
    async fn names_and_addresses_are_told_apart() {
        let local = SocketAddr::from(([127, 0, 0, 1], 7301));
        assert_eq!(source("127.0.0.1", 7301).addresses().await, [local]);
        assert_eq!(source("http://127.0.0.1:7301/", 1).addresses().await, [local]);
        assert!(source("localhost:7301", 1).addresses().await.iter().all(|a| a.port() == 7301));
        assert_eq!(source("no-such-host.invalid", 1).addresses().await, []);
    }

    #[tokio::test]
    async fn the_cache_stands_in_when_a_source_fails_or_misleads() {
        let dns = Moody::default();
        let discovery = Discovery::new(vec![Box::new(dns.clone())]);
        assert_eq!(discovery.refresh().await, []);
        discovery.answered(at(1));
        assert_eq!(discovery.refresh().await, [at(1)], "the source fails");
        dns.say(&[at(2), at(2), SocketAddr::from(([0, 0, 0, 0], 1))]);
        assert_eq!(discovery.refresh().await, [at(1), at(2)], "nobody has answered there yet");
        discovery.answered(at(2));
        assert_eq!(discovery.refresh().await, [at(2)]);
        discovery.failed(at(2));
        assert_eq!(discovery.refresh().await, [at(1), at(2)], "nobody answers there now");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_that_hangs_is_not_doubled() {
        let dns = Dns::new("db.example", 7301);
        let (answer, hangs) = tokio::sync::oneshot::channel();
        *dns.lookup.lock().await = Some(tokio::spawn(async { hangs.await.unwrap_or_default() }));
        let start = Instant::now();
        assert_eq!(dns.addresses().await, []);
        assert_eq!(start.elapsed(), PATIENCE);
        answer.send(vec![at(1)]).expect("it is waited for still");
        assert_eq!(dns.addresses().await, [at(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn sources_are_asked_less_often_when_nothing_changes() {
        let dns = Moody::default();
        let discovery = Discovery::new(vec![Box::new(dns.clone())]);
        dns.say(&[at(1)]);
        discovery.refresh().await;
        assert_eq!(discovery.pause(), OFTEN);
        tokio::time::advance(QUIET).await;
        discovery.refresh().await;
        assert_eq!(discovery.pause(), SELDOM);
        dns.say(&[at(2)]);
        discovery.refresh().await;
        assert_eq!(discovery.pause(), OFTEN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_does_not_discover_itself() {
        let discovery = Discovery::new(vec![Box::new(Fixed(vec![at(1), at(2)]))]);
        discovery.itself(at(1));
        assert_eq!(discovery.refresh().await, [at(2)]);
        tokio::time::advance(OWN).await;
        assert_eq!(discovery.refresh().await, [at(1), at(2)], "it may be another's by now");
    }

    #[tokio::test]
    async fn fixed_addresses_and_learned_ones_survive_a_restart_without_sources() {
        let disk = Arc::new(Mutex::new(None::<Vec<u8>>));
        let save = |disk: &Arc<Mutex<Option<Vec<u8>>>>| -> Save {
            let disk = disk.clone();
            Box::new(move |bytes| {
                *disk.lock().expect("no panic") = Some(bytes.to_vec());
                Ok(())
            })
        };
        let first = Discovery::with_cache(vec![Box::new(Fixed(vec![at(1)]))], None, save(&disk));
        first.answered(at(2));
        first.refresh().await;
        let on_disk = || disk.lock().expect("no panic").clone();
        while on_disk().is_none() {
            tokio::task::yield_now().await;
        }
        let saved = on_disk().expect("it has been saved");
        let second = Discovery::with_cache(Vec::new(), Some(&saved), save(&disk));
        assert_eq!(second.refresh().await, [at(1), at(2)]);
        let garbled = Discovery::with_cache(Vec::new(), Some(b"{\"v\":1"), save(&disk));
        assert_eq!(garbled.refresh().await, []);
    }

    #[tokio::test]
    async fn what_could_not_be_saved_is_saved_later() {
        let tries = Arc::new(Mutex::new(0));
        let counted = tries.clone();
        let save: Save = Box::new(move |_| {
            *counted.lock().expect("no panic") += 1;
            Err(std::io::Error::other("the disk is full"))
        });
        let discovery = Discovery::with_cache(vec![Box::new(Fixed(vec![at(1)]))], None, save);
        while *tries.lock().expect("no panic") < 2 {
            discovery.refresh().await;
            tokio::task::yield_now().await;
        }
    }
}
