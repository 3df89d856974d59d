//! The address cache: where nodes have answered, kept for the day on which DNS does not. An address comes in when it is
//! written down or when a node answers there, and goes after it failed again and again. It is a value: time is an
//! argument, and what goes to disk are bytes.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// How many addresses are kept.
pub const MOST: usize = 1024;

/// An address goes after so many failures in a row,
const FAILURES: u32 = 5;

/// the first of them at least so long ago: a node that restarts is not forgotten.
const PATIENCE: Duration = Duration::from_secs(30);

/// The version of the bytes.
const VERSION: u32 = 1;

/// The largest list that is looked at, in bytes.
const MAX_BYTES: usize = 128 << 10;

/// Addresses of nodes; see the module.
#[derive(Debug, Default)]
pub struct Addresses {
    entries: BTreeMap<SocketAddr, Entry>,
    changed: bool,
}

#[derive(Debug, Default)]
struct Entry {
    /// Failures since the last answer.
    failures: u32,
    failing_since: Duration,
    answered: Option<Duration>,
}

/// Why stored bytes are no list of addresses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotAddresses {
    /// They are no JSON of the expected shape.
    #[error("it is no list of addresses: {0}")]
    Garbled(#[from] serde_json::Error),
    /// They are too many to be ours.
    #[error("it has {0} bytes, more than any list of addresses")]
    TooLong(usize),
    /// A later version of the program wrote them.
    #[error("it is of version {0}, and this program knows version {VERSION}")]
    Version(u32),
}

#[derive(Serialize, Deserialize)]
struct Saved {
    v: u32,
    addresses: Vec<SocketAddr>,
}

impl Addresses {
    /// Takes in what was saved; what cannot be the address of a node is left out.
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), NotAddresses> {
        if bytes.len() > MAX_BYTES {
            return Err(NotAddresses::TooLong(bytes.len()));
        }
        let saved: Saved = serde_json::from_slice(bytes)?;
        if saved.v != VERSION {
            return Err(NotAddresses::Version(saved.v));
        }
        let before = self.changed;
        saved.addresses.into_iter().for_each(|address| self.add(address));
        self.changed = before;
        Ok(())
    }

    /// Takes in an address that was written down.
    pub fn add(&mut self, address: SocketAddr) {
        if !plausible(address) || self.entries.contains_key(&address) {
            return;
        }
        self.entries.insert(address, Entry::default());
        self.changed = true;
        if self.entries.len() > MOST {
            self.make_room(address);
        }
    }

    /// A node answered there.
    pub fn answered(&mut self, address: SocketAddr, now: Duration) {
        self.add(address);
        if let Some(entry) = self.entries.get_mut(&address) {
            *entry = Entry { answered: Some(now), ..Entry::default() };
        }
    }

    /// No node answered there. The last address of all stays whatever happens: without it there would be no way back.
    pub fn failed(&mut self, address: SocketAddr, now: Duration) {
        let last = self.entries.len() <= 1;
        let Some(entry) = self.entries.get_mut(&address) else { return };
        if entry.failures == 0 {
            entry.failing_since = now;
        }
        entry.failures = entry.failures.saturating_add(1);
        if !last && entry.failures >= FAILURES && now.saturating_sub(entry.failing_since) >= PATIENCE {
            self.entries.remove(&address);
            self.changed = true;
        }
    }

    /// The node at this address is not another one: it need not be kept.
    pub fn remove(&mut self, address: SocketAddr) {
        self.changed |= self.entries.remove(&address).is_some();
    }

    /// Whether a node answered there when it was last asked.
    pub fn answers(&self, address: SocketAddr) -> bool {
        self.entries.get(&address).is_some_and(|entry| entry.failures == 0 && entry.answered.is_some())
    }

    /// The addresses, in order.
    pub fn iter(&self) -> impl Iterator<Item = SocketAddr> {
        self.entries.keys().copied()
    }

    /// The bytes to be saved, if there is something new since they were last asked for.
    pub fn unsaved(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let saved = Saved { v: VERSION, addresses: self.iter().collect() };
        Some(serde_json::to_vec(&saved).expect("addresses are texts"))
    }

    /// They could not be saved: there is something new still.
    pub fn not_saved(&mut self) {
        self.changed = true;
    }

    /// Drops the address that is missed least: one that fails before one that does not, then the one that answered
    /// longest ago; but not the newcomer.
    fn make_room(&mut self, newcomer: SocketAddr) {
        let others = self.entries.iter().filter(|(address, _)| **address != newcomer);
        let least = others.max_by_key(|(address, entry)| {
            (entry.failures, std::cmp::Reverse(entry.answered), std::cmp::Reverse(**address))
        });
        if let Some(address) = least.map(|(address, _)| *address) {
            self.entries.remove(&address);
        }
    }
}

/// Whether a node can be reached there at all.
pub fn plausible(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let broadcast = matches!(ip, std::net::IpAddr::V4(ip) if ip.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

/// What is in the file; none if there is no such file.
pub fn read(file: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts these bytes in place of the file in one step: whenever the power fails, the old or the new ones are there.
pub fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    };
    let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
    temporary.write_all(bytes)?;
    temporary.as_file().sync_all()?;
    temporary.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u16) -> SocketAddr {
        ([10, 0, (n >> 8) as u8, n as u8], 7301).into()
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_address_goes_after_failures_in_a_row_over_some_time() {
        let mut addresses = Addresses::default();
        addresses.add(at(1));
        addresses.answered(at(2), s(0));
        (0..100).for_each(|_| addresses.failed(at(2), s(1)));
        assert!(addresses.iter().eq([at(1), at(2)]), "a moment is no proof");
        assert!(!addresses.answers(at(2)));
        addresses.answered(at(2), s(20));
        (0..4).for_each(|n| addresses.failed(at(2), s(25 + 10 * n)));
        assert!(addresses.iter().eq([at(1), at(2)]), "an answer begins anew, and four are too few");
        addresses.failed(at(2), s(56));
        assert!(addresses.iter().eq([at(1)]));
        (0..100).for_each(|n| addresses.failed(at(1), s(60 + n)));
        assert!(addresses.iter().eq([at(1)]), "the last one stays");
    }

    #[test]
    fn what_is_saved_can_be_loaded() {
        let mut addresses = Addresses::default();
        addresses.add(at(1));
        addresses.answered("[fd00::1]:80".parse().expect("an address"), s(1));
        let bytes = addresses.unsaved().expect("they are new");
        assert_eq!(bytes, br#"{"v":1,"addresses":["10.0.0.1:7301","[fd00::1]:80"]}"#);
        addresses.answered(at(1), s(2));
        addresses.failed(at(1), s(3));
        assert_eq!(addresses.unsaved(), None, "answers and failures are not worth a write");
        let mut loaded = Addresses::default();
        loaded.load(&bytes).expect("these are ours");
        assert!(loaded.iter().eq(addresses.iter()));
        assert_eq!(loaded.unsaved(), None);
        loaded.remove(at(1));
        assert_eq!(loaded.unsaved(), Some(br#"{"v":1,"addresses":["[fd00::1]:80"]}"#.to_vec()));
        loaded.not_saved();
        assert!(loaded.unsaved().is_some());
    }

    #[test]
    fn hostile_bytes_are_refused_whole() {
        let long = format!(r#"{{"v":1,"addresses":["10.0.0.1:1"{}]}}"#, r#","10.0.0.1:1""#.repeat(20_000));
        let bad: [&[u8]; 7] = [
            b"",
            b"\xff\xfe\0",
            b"[]",
            br#"{"v":1}"#,
            br#"{"v":2,"addresses":[]}"#,
            br#"{"v":1,"addresses":["10.0.0.1:7301","no address"]}"#,
            long.as_bytes(),
        ];
        for bytes in bad {
            let mut addresses = Addresses::default();
            addresses.load(bytes).expect_err("this is no list of addresses");
            assert_eq!(addresses.iter().next(), None);
            assert_eq!(addresses.unsaved(), None);
        }
        let mut addresses = Addresses::default();
        let odd =
            br#"{"v":1,"addresses":["0.0.0.0:1","224.0.0.1:1","255.255.255.255:1","10.0.0.1:0","[::]:1"]}"#;
        addresses.load(odd).expect("a list");
        assert_eq!(addresses.iter().next(), None, "no node can be there");
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_answers() {
        let mut addresses = Addresses::default();
        let most = MOST as u16;
        (0..most).for_each(|n| addresses.answered(at(n), s(u64::from(n) + 1)));
        addresses.failed(at(9), s(2000));
        addresses.add(at(most));
        addresses.add(at(most + 1));
        assert_eq!(addresses.iter().count(), MOST);
        assert!(!addresses.iter().any(|address| address == at(9)), "it failed");
        assert!(!addresses.iter().any(|address| address == at(most)), "it never answered");
        addresses.answered(at(most + 2), s(2001));
        addresses.answered(at(most + 3), s(2001));
        let kept = addresses.iter().collect::<Vec<_>>();
        assert!(!kept.contains(&at(most + 1)) && !kept.contains(&at(0)) && kept.contains(&at(1)));
        assert_eq!(kept.len(), MOST);
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("addresses.json");
        assert_eq!(read(&file).expect("none is no error"), None);
        replace(&file, b"one").expect("the disk is there");
        replace(&file, b"two").expect("the disk is there");
        assert_eq!(read(&file).expect("it is there").as_deref(), Some(b"two".as_slice()));
        assert_eq!(
            std::fs::read_dir(directory.path()).expect("a directory").count(),
            1,
            "nothing else is left"
        );
        assert!(replace(&directory.path().join("no/such"), b"").is_err());
    }
}
