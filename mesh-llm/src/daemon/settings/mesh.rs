//! What is said about the mesh: whether there is one, how to get in, how to be reached.

use super::{Layer, Switch, TokenSource};
use crate::manage::Console;
use serde::Deserialize;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Whether this machine takes part in a mesh, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshSettings {
    /// Whether it does.
    pub presence: Presence,
    /// What for.
    pub part: Part,
    /// The token to join by; none: the mesh that it is in already, else one of its own.
    pub join: Option<TokenSource>,
    /// What helps where machines do not reach each other.
    pub relays: Relays,
    /// The UDP port that others reach it at; none, or 0: any free one.
    pub bind_port: Option<u16>,
    /// Whether its model is split over the mesh.
    pub spread: Spread,
    /// How far machines of a split may be from each other, there and back.
    pub most_round_trip: Duration,
    /// Where the console is.
    pub console: Console,
}

/// How far machines of a split may be from each other, unless something else is said.
pub const DEFAULT_MAX_RTT: Duration = Duration::from_millis(80);

impl Default for MeshSettings {
    fn default() -> Self {
        Self::from_layer(&Layer::default())
    }
}

/// Whether a model is split over the mesh.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Spread {
    /// If it does not fit on one machine.
    #[default]
    IfNeeded,
    /// Also if it does.
    Always,
}

/// Whether a machine is in a mesh.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    #[default]
    InMesh,
    /// It is alone, and opens no port for others.
    Alone,
}

/// What a machine does in the mesh.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Part {
    /// It serves models.
    #[default]
    Serve,
    /// It only uses what others serve.
    Use,
}

/// The relays through which packets go that find no other way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Relays {
    /// Those that iroh's makers run for everybody.
    #[default]
    Default,
    /// These.
    Own(Vec<RelayUrl>),
    /// None: machines that do not reach each other directly do not reach each other.
    None,
}

impl MeshSettings {
    /// What all layers together say.
    pub(super) fn from_layer(layer: &Layer) -> Self {
        let is_on = |switch: Option<Switch>| switch == Some(Switch(true));
        Self {
            presence: match is_on(layer.no_mesh) {
                true => Presence::Alone,
                false => Presence::InMesh,
            },
            part: match is_on(layer.client) {
                true => Part::Use,
                false => Part::Serve,
            },
            join: layer.join.clone(),
            relays: match &layer.relay {
                _ if is_on(layer.no_relay) => Relays::None,
                Some(RelayUrls(own)) => Relays::Own(own.clone()),
                None => Relays::Default,
            },
            bind_port: layer.bind_port,
            spread: match is_on(layer.split) {
                true => Spread::Always,
                false => Spread::IfNeeded,
            },
            most_round_trip: layer.max_rtt.map_or(DEFAULT_MAX_RTT, |most| most.0),
            console: match layer.console {
                _ if is_on(layer.no_console) => Console::Off,
                Some(port) => Console::Port(port),
                None => Console::Default,
            },
        }
    }
}

/// What a layer says against something: one that asks for the thing wants it, whatever is said below.
fn against(switch: Option<Switch>, asks_for_it: bool) -> Option<Switch> {
    switch.or(asks_for_it.then_some(Switch(false)))
}

/// Whether a layer wants to be alone.
pub(super) fn no_mesh(layer: &Layer) -> Option<Switch> {
    let joins = layer.join.is_some() || layer.client == Some(Switch(true));
    against(layer.no_mesh, joins)
}

/// Whether a layer wants to use models only.
pub(super) fn client(layer: &Layer) -> Option<Switch> {
    against(layer.client, layer.model.is_some() || layer.rpc.is_some())
}

/// Whether a layer wants no relays.
pub(super) fn no_relay(layer: &Layer) -> Option<Switch> {
    against(layer.no_relay, layer.relay.is_some())
}

/// Whether a layer wants no console.
pub(super) fn no_console(layer: &Layer) -> Option<Switch> {
    against(layer.no_console, layer.console.is_some())
}

/// Where a relay is: `https://NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct RelayUrl(String);

/// Words that are no [`RelayUrl`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address of a relay: write such as https://relay.example.org")]
pub struct BadRelayUrl(String);

impl FromStr for RelayUrl {
    type Err = BadRelayUrl;

    fn from_str(words: &str) -> Result<Self, BadRelayUrl> {
        let words = words.trim();
        match words.parse::<reqwest::Url>() {
            Ok(url) if ["https", "http"].contains(&url.scheme()) && url.has_host() => {
                Ok(Self(words.to_owned()))
            }
            _ => Err(BadRelayUrl(words.to_owned())),
        }
    }
}

impl TryFrom<String> for RelayUrl {
    type Error = BadRelayUrl;

    fn try_from(words: String) -> Result<Self, BadRelayUrl> {
        words.parse()
    }
}

impl fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Relays: in a file a list or, as everywhere, words with commas between them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RelaysInFile")]
pub struct RelayUrls(pub Vec<RelayUrl>);

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "https://NAME, several of them with commas between, or a list of them"
)]
enum RelaysInFile {
    Words(String),
    List(Vec<String>),
}

impl TryFrom<RelaysInFile> for RelayUrls {
    type Error = BadRelayUrl;

    fn try_from(relays: RelaysInFile) -> Result<Self, BadRelayUrl> {
        match relays {
            RelaysInFile::Words(words) => words.parse(),
            RelaysInFile::List(list) => {
                let relays = list.into_iter().map(RelayUrl::try_from);
                Ok(Self(relays.collect::<Result<_, _>>()?))
            }
        }
    }
}

impl FromStr for RelayUrls {
    type Err = BadRelayUrl;

    fn from_str(words: &str) -> Result<Self, BadRelayUrl> {
        let relays = words.split(',').map(RelayUrl::from_str);
        Ok(Self(relays.collect::<Result<_, _>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mesh(layers: &[&str]) -> MeshSettings {
        let layers = layers.iter().map(|text| toml::from_str::<Layer>(text).unwrap());
        MeshSettings::from_layer(&layers.reduce(Layer::over).unwrap_or_default())
    }

    #[test]
    fn nothing_said_is_a_mesh_with_everything_by_default() {
        assert_eq!(mesh(&[]), MeshSettings::default());
    }

    #[test]
    fn the_upper_of_two_wishes_counts() {
        let own = Relays::Own(vec!["https://r.example".parse().unwrap()]);
        let (relay, none) = ("relay = 'https://r.example'", "no-relay = true");
        assert_eq!(mesh(&[relay, none]).relays, own);
        assert_eq!(mesh(&[none, relay]).relays, Relays::None);
        assert_eq!(mesh(&["no-relay = false", none]).relays, Relays::Default);

        assert_eq!(
            mesh(&["console = 1", "no-console = true"]).console,
            Console::Port(1)
        );
        assert_eq!(mesh(&["no-console = true", "console = 1"]).console, Console::Off);

        assert_eq!(mesh(&["model = 'x'", "client = true"]).part, Part::Serve);
        assert_eq!(mesh(&["client = true", "model = 'x'"]).part, Part::Use);
        assert_eq!(mesh(&["", "client = true"]).part, Part::Use);

        assert_eq!(mesh(&["join = 't'", "no-mesh = true"]).presence, Presence::InMesh);
        assert_eq!(
            mesh(&["client = true", "no-mesh = true"]).presence,
            Presence::InMesh
        );
        assert_eq!(mesh(&["no-mesh = true", "join = 't'"]).presence, Presence::Alone);
    }

    #[test]
    fn relays_are_a_list_or_words() {
        let relays = |text: &str| toml::from_str::<Layer>(text).map(|layer| layer.relay.unwrap());
        let two = "https://a.example,http://127.0.0.1:3340/".parse().unwrap();
        assert_eq!(
            relays("relay = 'https://a.example, http://127.0.0.1:3340/'").unwrap(),
            two
        );
        assert_eq!(
            relays("relay = ['https://a.example', 'http://127.0.0.1:3340/']").unwrap(),
            two
        );
        for bad in ["", "a.example", "ftp://a.example", "https://", "https://a b"] {
            let error = bad.parse::<RelayUrl>().unwrap_err().to_string();
            assert!(
                error.contains(&format!("`{bad}`")) && error.contains("https://relay"),
                "{error}"
            );
        }
    }

    fn layers() -> impl Strategy<Value = Layer> {
        let switch = || proptest::option::of(any::<bool>().prop_map(Switch));
        let asks = || proptest::option::of(Just(()));
        (
            switch(),
            switch(),
            switch(),
            switch(),
            asks(),
            asks(),
            asks(),
            asks(),
        )
            .prop_map(
                |(no_mesh, client, no_relay, no_console, join, model, relay, console)| Layer {
                    no_mesh,
                    client,
                    no_relay,
                    no_console,
                    join: join.map(|()| TokenSource::StandardInput),
                    model: model.map(|()| crate::daemon::settings::ModelNames(vec!["x".to_owned()])),
                    relay: relay.map(|()| RelayUrls::default()),
                    console: console.map(|()| 1),
                    ..Layer::default()
                },
            )
    }

    proptest! {
        #[test]
        fn precedence_does_not_depend_on_the_order_of_merging(a in layers(), b in layers(), c in layers()) {
            let left = a.clone().over(b.clone()).over(c.clone());
            prop_assert_eq!(MeshSettings::from_layer(&left), MeshSettings::from_layer(&a.over(b.over(c))));
        }
    }
}
