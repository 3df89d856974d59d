//! Who is not trusted any more, whatever certificate it shows.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, RwLock},
};

use super::Party;

/// The names of those whose certificates were revoked, as far as this process has heard. It only grows.
#[derive(Clone, Default)]
pub struct Revoked(Arc<RwLock<BTreeSet<String>>>);

impl Revoked {
    /// Takes note of these; gives those that are news.
    pub(crate) fn learn(&self, names: impl IntoIterator<Item = String>) -> Vec<String> {
        let mut news: Vec<String> = names.into_iter().filter(|name| !self.has(name)).collect();
        news.retain(|name| self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name.clone()));
        for name in &news {
            tracing::warn!(%name, "a certificate was revoked: its holder is not heard any more");
        }
        news
    }

    /// Whether the certificate of whoever is called so was revoked.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// All of them.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Whether nothing is known against somebody.
    pub(crate) fn admits(&self, party: Option<Party>) -> bool {
        party.is_none_or(|party| !self.has(&party.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_revoked_stays_so() {
        let (revoked, party) = (Revoked::default(), Party::worker());
        assert!(revoked.admits(Some(party)) && revoked.admits(None));
        let news = revoked.clone().learn([party.name(), party.name()]);
        assert_eq!(news, [party.name()]);
        assert!(!revoked.admits(Some(party)), "clones share what they know");
        assert!(revoked.learn([party.name()]).is_empty());
        assert!(
            !revoked.admits(Some(party)) && revoked.admits(Some(Party::worker())) && revoked.admits(None)
        );
    }
}
