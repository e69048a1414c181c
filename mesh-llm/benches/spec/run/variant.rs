//! How the next tokens are guessed.

use std::ffi::OsString;
use std::path::Path;

/// A setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Not at all.
    None,
    /// By the draft model alone.
    Draft,
    /// By copying alone.
    NGram,
    /// As mesh-llm likes.
    Policy,
    /// By the draft model, so many tokens a window and so many windows in flight, whatever comes of it.
    Fixed {
        /// Tokens.
        window: u32,
        /// Windows.
        windows: u32,
    },
}

/// Tokens of a window, where it is fixed.
const WINDOW: [u32; 3] = [2, 4, 8];

/// Windows in flight, where they are fixed.
const WINDOWS: [u32; 5] = [1, 2, 4, 8, 16];

impl Variant {
    /// Those of so many nodes, in the order in which they are measured.
    pub fn all(fixed: bool, nodes: usize) -> Vec<Variant> {
        let mut variants = vec![Variant::None, Variant::Draft, Variant::NGram, Variant::Policy];
        if fixed {
            // On one node no window leaves before the last one is back.
            let windows = if nodes == 1 { &WINDOWS[..1] } else { &WINDOWS };
            let fixed = WINDOW.into_iter().flat_map(|window| {
                windows.iter().map(move |windows| Variant::Fixed {
                    window,
                    windows: *windows,
                })
            });
            variants.extend(fixed);
        }
        variants
    }

    /// As rows call it.
    pub fn name(self) -> String {
        match self {
            Variant::None => "none".to_owned(),
            Variant::Draft => "draft".to_owned(),
            Variant::NGram => "ngram".to_owned(),
            Variant::Policy => "policy".to_owned(),
            Variant::Fixed { window, windows } => format!("draft {window} x {windows}"),
        }
    }

    /// What the daemon is told.
    pub fn arguments(self, draft: &Path) -> Vec<OsString> {
        let mode = match self {
            Variant::None => "off",
            Variant::Draft | Variant::Fixed { .. } => "draft",
            Variant::NGram => "ngram",
            Variant::Policy => "auto",
        };
        let mut arguments: Vec<OsString> = vec!["--speculate".into(), mode.into()];
        match self {
            Variant::None | Variant::NGram => arguments.push("--no-draft".into()),
            Variant::Draft | Variant::Policy | Variant::Fixed { .. } => {
                arguments.extend(["--draft".into(), draft.into()]);
            }
        }
        if let Variant::Fixed { window, windows } = self {
            arguments.extend(["--draft-max".into(), window.to_string().into()]);
            arguments.extend(["--draft-windows".into(), windows.to_string().into()]);
        }
        arguments
    }

    /// Whether it is a setting that the policy is compared with.
    pub fn is_fixed(self) -> bool {
        matches!(self, Variant::None | Variant::NGram | Variant::Fixed { .. })
    }
}
