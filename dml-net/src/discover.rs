//! Where nodes are: discovery gives addresses, nothing more. Whether a node is there, and whether it is this one itself,
//! is found out by asking.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
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
    lookup: tokio::sync::Mutex<Option<JoinHandle<io::Result<Vec<SocketAddr>>>>>,
    /// Whether the last lookup failed: that is told once.
    fails: AtomicBool,
}

/// How long the resolver may take.
const PATIENCE: Duration = Duration::from_secs(2);

impl Dns {
    /// The nodes behind this name, on this port, which DNS does not tell.
    pub fn new(name: impl Into<String>, port: u16) -> Self {
        Self { name: name.into(), port, lookup: Default::default(), fails: AtomicBool::default() }
    }

    /// A name that is unknown may be known later, when the others have started: it is asked for again.
    fn failed(&self, why: &dyn std::fmt::Display) {
        if !self.fails.swap(true, Ordering::Relaxed) {
            tracing::warn!(name = %self.name, %why, "the name of the db nodes is not known: it is asked for again");
        }
    }
}

#[async_trait]
impl Discover for Dns {
    async fn addresses(&self) -> Vec<SocketAddr> {
        let mut under_way = self.lookup.lock().await;
        let lookup = under_way.get_or_insert_with(|| tokio::spawn(look_up(self.name.clone(), self.port)));
        let Ok(found) = tokio::time::timeout(PATIENCE, lookup).await else {
            self.failed(&format_args!("no answer within {} s", PATIENCE.as_secs()));
            return Vec::new();
        };
        *under_way = None;
        match found.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok(addresses) => {
                self.fails.store(false, Ordering::Relaxed);
                addresses
            }
            Err(error) => {
                self.failed(&error);
                Vec::new()
            }
        }
    }
}

async fn look_up(name: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), port)).await?.collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// The port of db nodes, where none is given.
pub const PORT: u16 = 7301;

/// Where db nodes are said to be: what a user wrote after `--join`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// One node.
    Address(SocketAddr),
    /// All addresses behind a name.
    Name {
        /// The name, for the system's resolver.
        name: String,
        /// The port, which DNS does not tell.
        port: u16,
    },
}

/// Why a text is no place of db nodes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAPlace {
    /// It is neither an address nor a name.
    #[error("this is neither an address nor a host name: write {HOW}")]
    Text,
    /// What follows the last colon is no port.
    #[error("'{0}' is no port, which is a number from 1 to 65535: write {HOW}")]
    Port(String),
    /// No node can be reached there.
    #[error("{0} is an address to listen on, where no node can be reached: write that of another node")]
    Nowhere(SocketAddr),
}

const HOW: &str = "10.0.0.5:7301, [fd00::5]:7301 or db.example.org:7301 (without a port, it is 7301)";

impl std::str::FromStr for Place {
    type Err = NotAPlace;

    /// Reads `ADDRESS:PORT`, `NAME:PORT`, or either without a port, all with or without `http://`.
    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let text = text.trim();
        let text = text.strip_prefix("http://").unwrap_or(text);
        let text = text.strip_suffix('/').unwrap_or(text);
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        let alone = || Some(SocketAddr::new(bare.parse().ok()?, PORT));
        if let Some(address) = text.parse().ok().or_else(alone) {
            return if plausible(address) {
                Ok(Self::Address(address))
            } else {
                Err(NotAPlace::Nowhere(address))
            };
        }
        let (name, port) = text.rsplit_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
        if !is_host_name(name) {
            return Err(NotAPlace::Text);
        }
        let port = match port {
            None => PORT,
            Some(digits) => {
                digits.parse().ok().filter(|port| *port != 0).ok_or(NotAPlace::Port(digits.into()))?
            }
        };
        Ok(Self::Name { name: name.into(), port })
    }
}

/// Whether a name is made as host names are (RFC 1123), with underscores too, which names of services have. What ends in
/// digits alone is an address with a mistake.
fn is_host_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(good)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253 && name.split('.').all(label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name { name, port } => write!(f, "{name}:{port}"),
        }
    }
}

impl Place {
    /// What tells the addresses there.
    pub fn source(&self) -> Box<dyn Discover> {
        match self {
            Self::Address(address) => Box::new(Fixed(vec![*address])),
            Self::Name { name, port } => Box::new(Dns::new(name, *port)),
        }
    }
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

    fn place(text: &str) -> Result<Place, NotAPlace> {
        text.parse()
    }

    #[test]
    fn names_and_addresses_are_told_apart() {
        let local = Place::Address(SocketAddr::from(([127, 0, 0, 1], PORT)));
        for text in ["127.0.0.1", "127.0.0.1:7301", "http://127.0.0.1:7301/", " 127.0.0.1 "] {
            assert_eq!(place(text), Ok(local.clone()), "{text}");
        }
        for text in ["::1", "[::1]", "[::1]:7301"] {
            assert_eq!(place(text).map(|place| place.to_string()), Ok("[::1]:7301".into()), "{text}");
        }
        for (text, name, port) in [("tasks.db", "tasks.db", PORT), ("db_1.example.:99", "db_1.example.", 99)]
        {
            assert_eq!(place(text), Ok(Place::Name { name: name.into(), port }), "{text}");
        }
    }

    #[test]
    fn what_is_no_place_is_told_how_to_be_one() {
        for text in [
            "",
            ":",
            "http://",
            "a b",
            "a//b",
            "https://a:1",
            "a:1:2",
            "-a",
            "10.0.0.5.6",
            "10.0.0.256:1",
            "ü",
        ] {
            assert_eq!(place(text), Err(NotAPlace::Text), "{text}");
        }
        for (text, port) in
            [("db:port", "port"), ("db:", ""), ("db:0", "0"), ("db:65536", "65536"), ("db:-1", "-1")]
        {
            assert_eq!(place(text), Err(NotAPlace::Port(port.into())), "{text}");
        }
        for text in ["0.0.0.0", "0.0.0.0:7301", "[::]:7301", "127.0.0.1:0", "255.255.255.255:1"] {
            assert!(matches!(place(text), Err(NotAPlace::Nowhere(_))), "{text}");
        }
        assert!(place("a b").expect_err("a blank").to_string().contains("10.0.0.5:7301"));
    }

    #[tokio::test]
    async fn a_name_gives_its_addresses_or_none() {
        let source = place("localhost:99").expect("a name").source();
        assert!(source.addresses().await.iter().all(|address| address.port() == 99));
        assert_eq!(Dns::new("no-such-host.invalid", 1).addresses().await, []);
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
        *dns.lookup.lock().await = Some(tokio::spawn(async { Ok(hangs.await.unwrap_or_default()) }));
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
