//! The mesh as a part of the daemon: what this machine offers goes in, what others serve comes out, and what the
//! user wants of it is done.

mod adopting;
mod lending;
mod machine;
mod offer;
mod on_disk;
mod orders;
mod placing;
mod remotes;
mod round_trips;
pub(super) mod split;
mod status;

pub(super) use machine::Machine;
pub(super) use orders::{LoadedFor, ModelOrder};
pub(super) use placing::{Directive, Directives, MOST_EPOCH, newest_epoch};

use super::OwnModel;
use super::report::Reporter;
use super::serving::{AskedFor, ByModel, InMesh};
use super::settings::{self, MeshSettings, Presence, Settings, TokenError, TokenSource};
use super::state::{Home, StateError};
use crate::api::{self, Remotes};
use crate::engine::State;
use crate::exit::Exit;
use crate::manage::{self, Command, Manage, Running, SOCKET};
use crate::mesh::core::Part;
use crate::mesh::id::Role;
use crate::mesh::state::WantState;
use crate::mesh::token::{Token, TokenError as TokenText};
use crate::mesh::wire::Open;
use crate::mesh::{Invitation, Joining, Mesh, MeshError, MeshOptions, Offer, PeerRequest, Relays, Serve};
use crate::models::Library;
use adopting::Adopting;
use lending::{Inbox, Lending};
use split::{Fetcher, LenderEvent};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// Orders that may wait.
const ORDERS: usize = 16;

/// How long a relay is waited for before the invite token is shown: without one it only works nearby.
const ONLINE_WITHIN: Duration = Duration::from_secs(3);

/// How long the token lets in that is shown at the start.
const INVITED_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Why this machine takes no part.
#[derive(Debug, thiserror::Error)]
pub(super) enum PartyError {
    /// The token cannot be read.
    #[error(transparent)]
    NoToken(#[from] TokenError),
    /// It is none.
    #[error("--join: {0}")]
    Token(#[from] TokenText),
    /// The mesh itself.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The management API.
    #[error(transparent)]
    Manage(#[from] manage::BindError),
    /// Another daemon is this machine's part already.
    #[error(
        "another mesh-llm with the state directory {} is in its mesh already: give this one a state directory of its \
         own with MESH_LLM_HOME, or end the other with `mesh-llm stop`",
        home.display()
    )]
    Taken {
        /// The state directory.
        home: std::path::PathBuf,
    },
    /// It is not let in.
    #[error("{0}")]
    Refused(String),
}

impl PartyError {
    /// How the process ends for this.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::NoToken(_) | Self::Token(_) => Exit::CONFIGURATION,
            Self::Mesh(MeshError::NoMesh) => Exit::CONFIGURATION,
            Self::Mesh(MeshError::Endpoint(_)) => Exit::UNAVAILABLE,
            Self::Mesh(_) | Self::State(_) | Self::Taken { .. } => Exit::STATE,
            Self::Manage(error) => error.exit(),
            Self::Refused(_) => Exit::REFUSED,
        }
    }
}

/// What goes in and out.
pub(super) struct Ends {
    /// What the engine of this machine's first model does.
    pub(super) engine: watch::Receiver<State>,
    /// What those of its other models do.
    pub(super) others: watch::Receiver<ByModel<State>>,
    /// Orders about models.
    pub(super) models: mpsc::Sender<ModelOrder>,
    /// What others serve.
    pub(super) remotes: watch::Sender<Remotes>,
    /// That somebody wants the daemon to end.
    pub(super) stop: mpsc::Sender<()>,
}

/// This machine's part in a mesh, or only its management API where it is alone.
pub(super) struct Party {
    mesh: Option<Mesh>,
    manage: Running,
    refused: Option<oneshot::Receiver<PartyError>>,
    joiner: Joiner,
    tasks: JoinSet<()>,
    /// Locked for as long as this daemon is this machine's part in the mesh.
    _lock: Option<std::fs::File>,
}

impl Party {
    /// Begins; waits for nobody else.
    pub(super) async fn start(
        settings: &Settings,
        home: &Home,
        run_folder: &Path,
        own: Option<&OwnModel>,
        ends: Ends,
        reporter: &Reporter,
    ) -> Result<Party, PartyError> {
        let Ends {
            engine,
            others,
            models: model_orders,
            remotes,
            stop,
        } = ends;
        let console = Manage::bind(settings.mesh.console, &run_folder.join(SOCKET)).await?;
        if let Some(warning) = console.warning() {
            reporter.note(&warning);
        }
        let mut tasks = JoinSet::new();
        let (offer, offered) = watch::channel(Offer::default());
        let serves = settings.mesh.part == settings::Part::Serve;
        let program = own.map(|own| &own.program);
        let (machine, machines) = watch::channel(machine::at_first(program, &settings.engine));
        offer.send_replace(offer::of(&engine.borrow(), None, machines.borrow().as_ref()));
        let (model, models) = watch::channel(offer::Models::default());
        let inbox = Inbox::new();
        let come = Arc::new(Notify::new());
        let fetcher = own.filter(|_| serves).map(|own| {
            let library = own.library.clone();
            let (reporter, come) = (reporter.clone(), come.clone());
            Arc::new(Fetcher::new(library, offered.clone(), reporter, come))
        });
        let serve = serve(engine.clone(), others.clone(), inbox.sender(), fetcher);
        let joined = join(settings, home, offered.clone(), serve, reporter).await?;
        let (mesh, lock) = joined.unzip();
        match program.filter(|_| mesh.is_some()) {
            Some(program) => {
                let settings = settings.engine.clone();
                tasks.spawn(machine::follow(program.clone(), settings, machine));
            }
            None => {
                machine.send_replace(Some(machine::alone(&settings.engine)));
            }
        }
        let (split, splits) = watch::channel(None);
        let (groups, grouped) = watch::channel(Vec::new());
        let (shortage, shortages) = watch::channel(ByModel::new());
        let (disk, on_disk) = watch::channel(Vec::new());
        let sources = offer::Sources {
            engine: engine.clone(),
            others: others.clone(),
            models,
            machine: machines.clone(),
            split: splits,
            groups: grouped,
            shortages,
            on_disk,
        };
        tasks.spawn(offer::follow(sources, mesh.as_ref().map(Mesh::view), offer));
        let lending_ends = lending::Ends {
            split,
            groups,
            shortages: shortage,
            offered: offered.clone(),
        };
        let lending = mesh.as_ref().filter(|_| serves).map(|mesh| {
            let mesh = (mesh.clone(), inbox);
            Lending::start(
                settings,
                mesh,
                program,
                machines,
                lending_ends,
                reporter,
                &mut tasks,
            )
        });
        if let Some(own) = own {
            tasks.spawn(on_disk::follow(
                own.library.clone(),
                engine.clone(),
                others.clone(),
                come,
                disk,
            ));
        }
        // One that was told nothing serves what is wanted.
        if let (Some(lending), Some(own)) = (&lending, own.filter(|_| settings.models.is_empty())) {
            let adopting = Adopting {
                library: own.library.clone(),
                sources: adopting::Sources {
                    offered: offered.clone(),
                    lent: lending.lent(),
                },
                room: lending.room(),
                orders: model_orders.clone(),
                mesh: lending.mesh(),
            };
            tasks.spawn(adopting.follow());
        }
        let (status, shown) = watch::channel(status::alone(&settings.home, &offered.borrow()));
        let (orders, ordered) = mpsc::channel::<Command>(ORDERS);
        let (invite, invited) = watch::channel(None);
        let mut refused = None;
        tasks.spawn(remotes::follow(mesh.clone(), others.clone(), remotes));
        if let Some(mesh) = &mesh {
            let (tell, told) = oneshot::channel();
            refused = Some(told);
            let is_new = settings.mesh.join.is_some() || !serves;
            tasks.spawn(follow_joining(
                mesh.clone(),
                (serves, is_new),
                reporter.clone(),
                tell,
            ));
            if serves {
                tasks.spawn(show_invite(mesh.clone(), invite, reporter.clone()));
            }
        }
        tasks.spawn(status::follow(
            mesh.clone(),
            settings.home.clone(),
            offered,
            (engine, others),
            invited,
            status,
        ));
        tasks.spawn(orders::obey(mesh.clone(), ordered, model_orders, stop));
        let manage = console.start(shown, orders);
        Ok(Party {
            mesh,
            manage,
            refused,
            joiner: Joiner {
                models: model,
                lending,
            },
            tasks,
            _lock: lock,
        })
    }

    /// What ties models to the mesh.
    pub(super) fn joiner(&self) -> Joiner {
        self.joiner.clone()
    }

    /// Waits until it is clear that this machine is not let in; for ever otherwise.
    pub(super) async fn refused(&mut self) -> PartyError {
        let told = match &mut self.refused {
            Some(refused) => refused.await.ok(),
            None => None,
        };
        self.refused = None;
        match told {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// Lends no more, from now on.
    pub(super) fn withdraw(&self) {
        if let Some(lending) = &self.joiner.lending {
            lending.withdraw();
        }
    }

    /// Waits until what others borrowed is back.
    pub(super) async fn is_back(&self) {
        if let Some(lending) = &self.joiner.lending {
            lending.is_back().await;
        }
    }

    /// Says goodbye.
    pub(super) async fn finish(mut self) {
        self.manage.finish().await;
        // First: who offers nothing any more is taken for gone, and says no goodbye.
        if let Some(mesh) = self.mesh {
            mesh.leave().await;
        }
        self.tasks.abort_all();
    }
}

/// Ties this machine's models to the mesh; clones do the same.
#[derive(Clone)]
pub(super) struct Joiner {
    models: watch::Sender<offer::Models>,
    lending: Option<Lending>,
}

impl Joiner {
    /// This machine's first model has this name.
    pub(super) fn first(&self, name: &str) {
        self.models
            .send_modify(|models| models.first = Some(name.to_owned()));
    }

    /// This machine was told to serve this model.
    pub(super) fn wants(&self, want: WantState) {
        self.models.send_modify(|models| {
            models.wants.retain(|other| other.model != want.model);
            models.wants.push(want);
        });
    }

    /// Its user wants a model that it took on for the mesh; whether there is such a one.
    pub(super) fn make_users(&self, model: &str) -> bool {
        self.models.send_if_modified(|models| {
            let mut wants = models.wants.iter_mut();
            let taken_on = wants.find(|want| want.model == model && want.is_adopted);
            taken_on.map(|want| want.is_adopted = false).is_some()
        })
    }

    /// It was told to serve it no more.
    pub(super) fn wants_no_more(&self, model: &str) {
        self.models
            .send_modify(|models| models.wants.retain(|want| want.model != model));
    }

    /// Has the model that nobody asked for make room for this one, as long as that is there; whether that is possible.
    pub(super) fn make_room_for(&self, model: &str) -> bool {
        let Some(lending) = &self.lending else {
            return false;
        };
        lending.room().make_for(model);
        true
    }

    /// What it takes to serve a model with others; none: this machine is alone.
    pub(super) fn in_mesh(
        &self,
        asked: Option<AskedFor>,
        fingerprints: PathBuf,
        library: Arc<Library>,
    ) -> Option<InMesh> {
        let lending = self.lending.as_ref();
        lending.map(|lending| lending.in_mesh(asked, fingerprints, library))
    }
}

/// Makes this machine a part of its mesh, unless it is to be alone.
async fn join(
    settings: &Settings,
    home: &Home,
    offer: watch::Receiver<Offer>,
    serve: Arc<Serve>,
    reporter: &Reporter,
) -> Result<Option<(Mesh, std::fs::File)>, PartyError> {
    let MeshSettings {
        presence,
        part,
        join,
        relays,
        bind_port,
        spread: _,
        most_round_trip: _,
        console: _,
    } = &settings.mesh;
    if *presence == Presence::Alone {
        return Ok(None);
    }
    let token = join.as_ref().map(TokenSource::read).transpose()?;
    let token = token.map(|token| token.0.parse::<Token>()).transpose()?;
    let part = match part {
        settings::Part::Serve => Part::Server,
        settings::Part::Use => Part::Client,
    };
    let Some(lock) = home.lock_mesh()? else {
        if token.is_none() && part == Part::Server {
            reporter.note(
                "another mesh-llm with the same state directory is in the mesh, so this one serves this machine alone; \
                 MESH_LLM_HOME gives it a state directory of its own",
            );
            return Ok(None);
        }
        return Err(PartyError::Taken {
            home: settings.home.clone(),
        });
    };
    let options = MeshOptions {
        folder: home.mesh()?,
        token,
        part,
        relays: match relays {
            settings::Relays::Default => Relays::Public,
            settings::Relays::None => Relays::None,
            // What is no URL of a relay to iroh was refused as none before.
            settings::Relays::Own(urls) => Relays::Own(
                urls.iter()
                    .filter_map(|url| url.to_string().parse().ok())
                    .collect(),
            ),
        },
        port: bind_port.filter(|port| *port != 0),
    };
    let mesh = Mesh::start(options, offer, serve).await?;
    Ok(Some((mesh, lock)))
}

/// Has this machine's engine answer what members ask it, its fetcher fetch models, and its lender look at the rest.
fn serve(
    engine: watch::Receiver<State>,
    others: watch::Receiver<ByModel<State>>,
    lender: mpsc::Sender<LenderEvent>,
    fetcher: Option<Arc<Fetcher>>,
) -> Arc<Serve> {
    Arc::new(move |request: PeerRequest| {
        let (engine, others, lender) = (engine.clone(), others.clone(), lender.clone());
        let fetcher = fetcher.clone();
        Box::pin(async move {
            tracing::debug!(peer = %request.node.fmt_short(), task = ?request.task, "a member asks");
            match request.task {
                Open::Http { model } => {
                    let other = others.borrow().get(&model).cloned();
                    let state = other.unwrap_or_else(|| engine.borrow().clone());
                    api::serve_peer(request.stream, state, model).await;
                }
                Open::Fetch(fetch) => {
                    if let Some(fetcher) = fetcher {
                        fetcher.serve(request.node, *fetch, request.stream).await;
                    }
                }
                // Who does not lend lets the stream end.
                _ => drop(lender.send(LenderEvent::Asked(request)).await),
            }
        })
    })
}

/// Tells how this machine stands with the mesh; `refused` is told when it will never be let in. One that is not `is_new`
/// goes on alone then, as it also does if it is put out while it runs.
async fn follow_joining(
    mesh: Mesh,
    (serves, is_new): (bool, bool),
    reporter: Reporter,
    refused: oneshot::Sender<PartyError>,
) {
    let mut joining = mesh.joining();
    let mut was_in = matches!(*joining.borrow(), Joining::In);
    let mut told = None;
    loop {
        let now = joining.borrow_and_update().clone();
        match now {
            Joining::In => {
                if !std::mem::replace(&mut was_in, true) {
                    let what = if serves { "joined" } else { "can use" };
                    reporter.note(&format!(
                        "this machine {what} the mesh {}",
                        mesh.view().borrow().mesh
                    ));
                }
            }
            Joining::Calling { last: Some(why) } if told.as_ref() != Some(&why) => {
                reporter.note(&format!("nobody of the mesh was reached yet, trying on: {why}"));
                told = Some(why);
            }
            Joining::Calling { .. } => {}
            Joining::Refused(why) if was_in || !is_new => {
                reporter.note(&format!(
                    "{}; this machine serves itself alone until then",
                    why.message
                ));
            }
            Joining::Refused(why) => {
                // The daemon ends already: all the same.
                let _ = refused.send(PartyError::Refused(why.message));
                return;
            }
        }
        if joining.changed().await.is_err() {
            return;
        }
    }
}

/// Shows how others join.
async fn show_invite(mesh: Mesh, invite: watch::Sender<Option<String>>, reporter: Reporter) {
    let mut joining = mesh.joining();
    if joining
        .wait_for(|joining| matches!(joining, Joining::In))
        .await
        .is_err()
    {
        return;
    }
    mesh.online(ONLINE_WITHIN).await;
    let invitation = Invitation {
        role: Role::Node,
        expires_in: Some(INVITED_FOR),
        uses: None,
        models: None,
    };
    match mesh.invite(invitation).await {
        Ok(token) => {
            reporter.invite(&token.to_string());
            invite.send_replace(Some(token.to_string()));
        }
        // Workers invite nobody.
        Err(error) => tracing::debug!(%error, "no invite token is shown"),
    }
}
