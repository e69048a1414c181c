//! The responses that clients can come back to: those that were made, as many as fit, and those that
//! are being made.

use super::responses_live::Live;
use crate::dialects::Problem;
use crate::dialects::responses::{Draft, Item, Known, Turn, previous_in_progress, previous_not_found};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Responses that are kept. An agent's conversation has some hundred.
const MOST_RESPONSES: usize = 4096;

/// What they may take, as JSON.
const MOST_BYTES: usize = 128 << 20;

/// The handle to all responses.
#[derive(Debug, Clone)]
pub(super) struct Responses(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    made: Store,
    /// Each ends, or is taken out, with the connection that it is made for.
    in_progress: HashMap<String, Live>,
}

impl Default for Responses {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            made: Store::new(MOST_RESPONSES, MOST_BYTES),
            in_progress: HashMap::new(),
        })))
    }
}

impl Responses {
    fn state(&self) -> MutexGuard<'_, State> {
        // No change stops half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks up what a request refers to.
    pub(super) fn known(&self, draft: &Draft) -> Result<Known, Problem> {
        let mut state = self.state();
        let history = match draft.previous() {
            None => Vec::new(),
            Some(id) if state.in_progress.contains_key(id) => return Err(previous_in_progress(id)),
            Some(id) => state
                .made
                .history(id)
                .map_err(|Gone(id)| previous_not_found(&id))?,
        };
        let items = state.made.items(draft.references().collect());
        Ok(Known { history, items })
    }

    /// A response that was made, and what it continues, oldest first.
    pub(super) fn history(&self, id: &str) -> Option<Vec<Arc<Turn>>> {
        let mut state = self.state();
        let turn = state.made.get(id)?;
        // Without all that came before, what there is.
        Some(state.made.history(id).unwrap_or_else(|_| vec![turn]))
    }

    /// A response that was made.
    pub(super) fn get(&self, id: &str) -> Option<Arc<Turn>> {
        self.state().made.get(id)
    }

    /// A response that is being made.
    pub(super) fn in_progress(&self, id: &str) -> Option<Live> {
        self.state().in_progress.get(id).cloned()
    }

    /// A response begins.
    pub(super) fn begin(&self, id: String, live: Live) {
        self.state().in_progress.insert(id, live);
    }

    /// A response has its last form.
    pub(super) fn keep(&self, turn: Turn) {
        let mut state = self.state();
        let live = state.in_progress.remove(turn.response.id());
        state.made.keep(turn);
        drop(state);
        // What it holds may come back to this handle.
        drop(live);
    }

    /// Forgets a response. Says whether there was one.
    pub(super) fn remove(&self, id: &str) -> bool {
        let mut state = self.state();
        let live = state.in_progress.remove(id);
        let made = state.made.remove(id);
        drop(state);
        live.is_some() || made
    }
}

/// Responses that were made. When there is no room, the least recently used goes; whoever uses a
/// response uses all that it continues, so that a conversation loses its end before its beginning.
#[derive(Debug)]
struct Store {
    entries: HashMap<String, Entry>,
    /// Ids by when they were last used.
    by_use: BTreeMap<u64, String>,
    uses: u64,
    bytes: usize,
    most_responses: usize,
    most_bytes: usize,
}

#[derive(Debug)]
struct Entry {
    turn: Arc<Turn>,
    bytes: usize,
    used: u64,
}

/// A response is not there, or not any more.
#[derive(Debug, PartialEq, Eq)]
struct Gone(String);

impl Store {
    fn new(most_responses: usize, most_bytes: usize) -> Self {
        Self {
            entries: HashMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            bytes: 0,
            most_responses,
            most_bytes,
        }
    }

    fn keep(&mut self, turn: Turn) {
        let id = turn.response.id().to_owned();
        self.remove(&id);
        let bytes = turn.bytes();
        self.bytes += bytes;
        let turn = Arc::new(turn);
        self.uses += 1;
        let used = self.uses;
        self.by_use.insert(used, id.clone());
        self.entries.insert(id.clone(), Entry { turn, bytes, used });
        // Its beginning is not older than itself. Where that is gone, nothing can be used.
        let _ = self.history(&id);
        while self.bytes > self.most_bytes || self.entries.len() > self.most_responses {
            let Some((_, oldest)) = self.by_use.first_key_value() else {
                break;
            };
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
    }

    fn touch(&mut self, id: &str) -> Option<Arc<Turn>> {
        let entry = self.entries.get_mut(id)?;
        self.by_use.remove(&entry.used);
        self.uses += 1;
        entry.used = self.uses;
        self.by_use.insert(entry.used, id.to_owned());
        Some(Arc::clone(&entry.turn))
    }

    fn get(&mut self, id: &str) -> Option<Arc<Turn>> {
        let turn = self.touch(id)?;
        let _ = self.history(id);
        Some(turn)
    }

    /// A response and what it continues, oldest first.
    fn history(&mut self, id: &str) -> Result<Vec<Arc<Turn>>, Gone> {
        let mut history = Vec::new();
        let mut next = Some(id.to_owned());
        while let Some(id) = next {
            let turn = self.touch(&id).ok_or(Gone(id))?;
            next = turn.response.previous().map(str::to_owned);
            history.push(turn);
        }
        history.reverse();
        Ok(history)
    }

    /// The items with these ids, as far as they are known.
    fn items(&mut self, mut wanted: HashSet<&str>) -> HashMap<String, Item> {
        let (mut found, mut used) = (HashMap::new(), Vec::new());
        for (id, entry) in &self.entries {
            if wanted.is_empty() {
                break;
            }
            for item in entry.turn.items() {
                if wanted.remove(item.id()) {
                    found.insert(item.id().to_owned(), item.clone());
                    used.push(id.clone());
                }
            }
        }
        for id in used {
            self.get(&id);
        }
        found
    }

    fn remove(&mut self, id: &str) -> bool {
        let Some(entry) = self.entries.remove(id) else {
            return false;
        };
        self.by_use.remove(&entry.used);
        self.bytes -= entry.bytes;
        true
    }
}

#[cfg(test)]
mod tests;
