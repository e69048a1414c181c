//! Which slot a prompt gets, and what of the KV cache it reuses. Pure.
//!
//! The longest common prefix is looked for over all slots, busy ones too: cells can belong to
//! several sequences, so a prefix is shared without copying a byte.

use crate::llama::Token;

use super::slot::SlotId;

/// A slot as the choice sees it.
#[derive(Debug, Clone, Copy)]
pub struct SlotView<'a> {
    /// The slot.
    pub slot: SlotId,
    /// Whether it is free.
    pub idle: bool,
    /// When it was last used; smaller is longer ago.
    pub last_used: u64,
    /// The tokens that the cache has for it.
    pub cached: &'a [Token],
    /// The first position that all layers still have: sliding windows forget early ones.
    pub first_position: usize,
}

/// What a model's cache can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheKind {
    /// Every token has its cell: prefixes can be cut and shared anywhere.
    Cells,
    /// So, but some layers keep only this many tokens before the last.
    Window(usize),
    /// One state for all tokens: it can be continued, not cut.
    State,
}

/// The slot for a prompt, and the cached tokens that it begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The idle slot to use.
    pub slot: SlotId,
    /// Tokens that need not be computed; fewer than the prompt has.
    pub reused: usize,
    /// Where they are, if not in that slot itself, which is then emptied first.
    pub donor: Option<SlotId>,
}

/// Chooses for `prompt`. `None` if no slot is idle.
pub fn place(prompt: &[Token], slots: &[SlotView<'_>], kind: CacheKind) -> Option<Placement> {
    let oldest = slots
        .iter()
        .filter(|view| view.idle)
        .min_by_key(|view| (!view.cached.is_empty(), view.last_used))?;
    let best = slots
        .iter()
        .map(|view| (reusable(prompt, view, kind), view))
        .max_by_key(|(reused, view)| (*reused, view.idle, view.last_used))
        .filter(|(reused, _)| *reused > 0);
    let Some((reused, best)) = best else {
        return Some(Placement {
            slot: oldest.slot,
            reused: 0,
            donor: None,
        });
    };
    if best.idle && (best.slot == oldest.slot || continues(best, reused) || kind == CacheKind::State) {
        return Some(Placement {
            slot: best.slot,
            reused,
            donor: None,
        });
    }
    if kind == CacheKind::State {
        return Some(Placement {
            slot: oldest.slot,
            reused: 0,
            donor: None,
        });
    }
    Some(Placement {
        slot: oldest.slot,
        reused,
        donor: Some(best.slot),
    })
}

/// Whether the prompt goes on where the slot's conversation ended, give or take an answer's last
/// tokens. A prompt that only begins alike, with the same system message, leaves the slot alone.
fn continues(view: &SlotView<'_>, reused: usize) -> bool {
    view.cached.len() - reused <= (reused / 8).max(32)
}

/// Tokens of `prompt` that the slot's cache holds, in a form that can be continued.
fn reusable(prompt: &[Token], view: &SlotView<'_>, kind: CacheKind) -> usize {
    // The last token is always computed: its logits are what the prompt is for.
    let most = prompt.len().saturating_sub(1);
    let common = common_prefix(&prompt[..most], view.cached);
    match kind {
        CacheKind::Cells => common,
        CacheKind::Window(window) if view.first_position == 0 || view.first_position + window <= common => {
            common
        }
        CacheKind::State if view.idle && common == view.cached.len() => common,
        CacheKind::Window(_) | CacheKind::State => 0,
    }
}

fn common_prefix(a: &[Token], b: &[Token]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn view(slot: u32, idle: bool, last_used: u64, cached: &[Token]) -> SlotView<'_> {
        SlotView {
            slot: SlotId(slot),
            idle,
            last_used,
            cached,
            first_position: 0,
        }
    }

    fn tokens(range: std::ops::Range<Token>) -> Vec<Token> {
        range.collect()
    }

    #[test]
    fn an_empty_slot_is_used_before_one_with_a_cache() {
        let old = tokens(0..10);
        let slots = [view(0, true, 1, &old), view(1, true, 5, &[])];
        let placement = place(&[77, 78], &slots, CacheKind::Cells);
        assert_eq!(
            placement,
            Some(Placement {
                slot: SlotId(1),
                reused: 0,
                donor: None
            })
        );
    }

    #[test]
    fn the_least_recently_used_slot_gives_way() {
        let (a, b) = (tokens(0..10), tokens(20..30));
        let slots = [view(0, true, 9, &a), view(1, true, 5, &b)];
        assert_eq!(
            place(&[77], &slots, CacheKind::Cells).map(|placement| placement.slot),
            Some(SlotId(1))
        );
    }

    #[test]
    fn a_conversation_goes_on_in_its_slot() {
        let a = tokens(0..100);
        let prompt = tokens(0..200);
        let slots = [view(0, true, 9, &a), view(1, true, 0, &[])];
        let placement = place(&prompt, &slots, CacheKind::Cells);
        assert_eq!(
            placement,
            Some(Placement {
                slot: SlotId(0),
                reused: 100,
                donor: None
            })
        );
    }

    #[test]
    fn a_system_prompt_is_shared_and_the_other_conversation_kept() {
        let a = tokens(0..1000);
        let mut prompt = tokens(0..500);
        prompt.extend([7777, 7778]);
        let slots = [view(0, true, 9, &a), view(1, true, 0, &[])];
        let placement = place(&prompt, &slots, CacheKind::Cells);
        assert_eq!(
            placement,
            Some(Placement {
                slot: SlotId(1),
                reused: 500,
                donor: Some(SlotId(0))
            })
        );
    }

    #[test]
    fn a_busy_slot_shares_its_prefix() {
        let a = tokens(0..50);
        let slots = [view(0, false, 9, &a), view(1, true, 0, &[])];
        let placement = place(&tokens(0..60), &slots, CacheKind::Cells);
        assert_eq!(
            placement,
            Some(Placement {
                slot: SlotId(1),
                reused: 50,
                donor: Some(SlotId(0))
            })
        );
    }

    #[test]
    fn the_same_prompt_again_computes_only_its_last_token() {
        let a = tokens(0..50);
        let slots = [view(0, true, 9, &a)];
        let placement = place(&a, &slots, CacheKind::Cells);
        assert_eq!(
            placement,
            Some(Placement {
                slot: SlotId(0),
                reused: 49,
                donor: None
            })
        );
    }

    #[test]
    fn a_recurrent_state_is_continued_but_never_cut_or_shared() {
        let a = tokens(0..50);
        let slots = [view(0, true, 9, &a), view(1, true, 0, &[])];
        let reused =
            |prompt: &[Token]| place(prompt, &slots, CacheKind::State).map(|placement| placement.reused);
        assert_eq!(reused(&tokens(0..60)), Some(50));
        assert_eq!(reused(&tokens(0..40)), Some(0));
        let busy = [view(0, false, 9, &a), view(1, true, 0, &[])];
        assert_eq!(
            place(&tokens(0..60), &busy, CacheKind::State).map(|placement| placement.reused),
            Some(0)
        );
    }

    #[test]
    fn what_a_sliding_window_forgot_is_not_reused() {
        let a = tokens(0..100);
        let mut window = view(0, true, 9, &a);
        window.first_position = 60;
        let reused = |prompt: &[Token]| {
            place(prompt, &[window], CacheKind::Window(30)).map(|placement| placement.reused)
        };
        assert_eq!(reused(&tokens(0..120)), Some(100));
        assert_eq!(reused(&tokens(0..80)), Some(0));
    }

    proptest! {
        #[test]
        fn what_is_reused_is_a_true_prefix_and_only_idle_slots_are_taken(
            prompt in prop::collection::vec(0..4, 1..12),
            caches in prop::collection::vec((prop::collection::vec(0..4, 0..12), any::<bool>(), 0_u64..9), 1..6),
        ) {
            let slots: Vec<SlotView<'_>> = caches
                .iter()
                .enumerate()
                .map(|(index, (cached, idle, used))| view(index as u32, *idle, *used, cached))
                .collect();
            let placement = place(&prompt, &slots, CacheKind::Cells);
            prop_assert_eq!(placement.is_some(), caches.iter().any(|(_, idle, _)| *idle));
            if let Some(placement) = placement {
                let source = &caches[placement.donor.unwrap_or(placement.slot).0 as usize].0;
                prop_assert!(placement.reused < prompt.len());
                prop_assert_eq!(&source[..placement.reused], &prompt[..placement.reused]);
                prop_assert!(caches[placement.slot.0 as usize].1);
                let longest = caches.iter().map(|(c, ..)| common_prefix(&prompt[..prompt.len() - 1], c)).max();
                prop_assert_eq!(Some(placement.reused), longest, "the longest prefix of all is found");
            }
        }
    }
}
