//! What is said about guessing ahead.

use super::Layer;
use llama_engine::server::options::{Count, Probability, SpeculationMode};
use serde::Deserialize;
use std::str::FromStr;

/// How answers are guessed ahead; none: the engine's choice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpeculationSettings {
    /// The draft model.
    pub draft: DraftWish,
    /// Tokens of a window at most.
    pub most_window: Option<Count>,
    /// What the draft model must think of a guess at least.
    pub min_p: Option<Probability>,
    /// What guesses.
    pub mode: SpeculationMode,
    /// Windows in flight.
    pub windows: Option<Count>,
}

/// Which draft model is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DraftWish {
    /// The one that the catalog has for the model, if it is on disk.
    #[default]
    Whichever,
    /// This one: a path or other words for a model.
    Named(String),
    /// None.
    None,
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(from = "bool")]
pub struct Switch(pub bool);

/// Words that are no [`Switch`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither yes nor no: write true or false")]
pub struct BadSwitch(String);

impl From<bool> for Switch {
    fn from(is_on: bool) -> Self {
        Self(is_on)
    }
}

impl FromStr for Switch {
    type Err = BadSwitch;

    fn from_str(word: &str) -> Result<Self, BadSwitch> {
        match word.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Ok(Self(true)),
            "0" | "false" | "no" | "off" => Ok(Self(false)),
            _ => Err(BadSwitch(word.to_owned())),
        }
    }
}

/// Whether a layer wants no draft model; one that names a draft model wants it, whatever is said below.
pub(super) fn no_draft(layer: &Layer) -> Option<Switch> {
    layer.no_draft.or(layer.draft.as_ref().map(|_| Switch(false)))
}

impl SpeculationSettings {
    /// What all layers together say.
    pub(super) fn from_layer(layer: &Layer) -> Self {
        Self {
            draft: match (&layer.draft, layer.no_draft) {
                (_, Some(Switch(true))) => DraftWish::None,
                (Some(model), _) => DraftWish::Named(model.clone()),
                (None, _) => DraftWish::Whichever,
            },
            most_window: layer.draft_max,
            min_p: layer.draft_min_p,
            mode: layer.speculate.unwrap_or_default(),
            windows: layer.draft_windows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layer(draft: Option<&str>, no_draft: Option<bool>) -> Layer {
        Layer {
            draft: draft.map(str::to_owned),
            no_draft: no_draft.map(Switch),
            ..Layer::default()
        }
    }

    fn wish(layers: &[Layer]) -> DraftWish {
        let merged = layers.iter().cloned().reduce(Layer::over).unwrap();
        SpeculationSettings::from_layer(&merged).draft
    }

    #[test]
    fn whoever_speaks_first_of_the_draft_model_is_heard() {
        let named = |name: &str| DraftWish::Named(name.to_owned());
        let (x, y, nothing) = (layer(Some("x"), None), layer(Some("y"), None), Layer::default());
        let (no, yes) = (layer(None, Some(true)), layer(None, Some(false)));
        assert_eq!(wish(std::slice::from_ref(&nothing)), DraftWish::Whichever);
        assert_eq!(wish(&[nothing.clone(), x.clone(), y]), named("x"));
        assert_eq!(wish(&[no.clone(), x.clone()]), DraftWish::None);
        assert_eq!(wish(&[x.clone(), no.clone()]), named("x"));
        assert_eq!(wish(&[yes.clone(), x]), named("x"));
        assert_eq!(wish(&[yes, no.clone()]), DraftWish::Whichever);
        assert_eq!(
            wish(&[layer(Some("x"), Some(true)), nothing, no]),
            DraftWish::None
        );
    }

    #[test]
    fn a_switch_is_said_in_many_words() {
        for (word, is_on) in [
            ("1", true),
            ("true", true),
            ("ON", true),
            ("0", false),
            ("no", false),
        ] {
            assert_eq!(word.parse(), Ok(Switch(is_on)), "{word}");
        }
        let error = "maybe".parse::<Switch>().unwrap_err().to_string();
        assert!(
            error.contains("`maybe`") && error.contains("true or false"),
            "{error}"
        );
    }

    fn layers() -> impl Strategy<Value = Layer> {
        let name = proptest::option::of(prop_oneof!["x", "y"]);
        (name, proptest::option::of(any::<bool>()))
            .prop_map(|(draft, no_draft)| layer(draft.as_deref(), no_draft))
    }

    proptest! {
        #[test]
        fn precedence_does_not_depend_on_the_order_of_merging(a in layers(), b in layers(), c in layers()) {
            let left = a.clone().over(b.clone()).over(c.clone());
            prop_assert_eq!(wish(&[left]), wish(&[a.over(b.over(c))]));
        }
    }
}
