//! The models that are served: the one that answers, and the small one that guesses ahead for it.

use super::download;
use super::report::Reporter;
use super::settings::{DraftWish, SpeculationSettings};
use crate::engine::State;
use crate::models::library::KnownDraft;
use crate::models::{self, Choice, Library, Model, Resolved, fetch};
use llama_engine::server::options::{Draft, Origin};
use tokio::sync::watch;

/// What is to be served.
pub(super) struct Wanted {
    model: Resolved,
    /// A draft model that the user named.
    draft: Option<Resolved>,
    /// Whether one that the catalog has for the model will do.
    looks_for_draft: bool,
}

impl Wanted {
    /// Finds what was asked for, on this machine or elsewhere.
    ///
    /// # Errors
    /// Where it cannot be told what is meant.
    pub(super) fn find(
        library: &Library,
        model: Option<&str>,
        speculation: &SpeculationSettings,
        memory_bytes: u64,
    ) -> Result<Self, models::Error> {
        let is_of_use = speculation.mode.uses_draft();
        let draft = match &speculation.draft {
            DraftWish::Named(words) if is_of_use => Some(library.resolve(Some(words), memory_bytes)?),
            _ => None,
        };
        Ok(Self {
            model: library.resolve(model, memory_bytes)?,
            draft,
            looks_for_draft: is_of_use && speculation.draft == DraftWish::Whichever,
        })
    }

    /// The name of the model.
    pub(super) fn name(&self) -> String {
        match &self.model {
            Resolved::Here(model) => model.id.clone(),
            Resolved::Missing(missing) => missing.name(),
        }
    }

    /// Both on this machine, downloaded if they were named and are not there.
    ///
    /// # Errors
    /// Where one cannot be had.
    pub(super) async fn have(
        self,
        library: &Library,
        state: &watch::Sender<State>,
        reporter: &Reporter,
    ) -> Result<(Model, Option<Draft>), fetch::Error> {
        let model = here(self.model, library, state, reporter).await?;
        if model.choice != Choice::Named {
            reporter.note(&model.choice.to_string());
        }
        let draft = match self.draft {
            Some(draft) => Some(Draft {
                path: here(draft, library, state, reporter).await?.path,
                origin: Origin::Asked,
            }),
            None if self.looks_for_draft => found(library, &model),
            None => None,
        };
        Ok((model, draft))
    }
}

async fn here(
    resolved: Resolved,
    library: &Library,
    state: &watch::Sender<State>,
    reporter: &Reporter,
) -> Result<Model, fetch::Error> {
    match resolved {
        Resolved::Here(model) => Ok(model),
        Resolved::Missing(missing) => download::to_serve(library, &missing, state, reporter).await,
    }
}

/// The draft model that the catalog has for a model, if it is here. Nobody asked for it: nothing is
/// downloaded, and nothing fails for it.
fn found(library: &Library, model: &Model) -> Option<Draft> {
    match library.draft_for(model) {
        KnownDraft::Here(draft) => Some(Draft {
            path: draft.path,
            origin: Origin::Found,
        }),
        KnownDraft::Elsewhere { model } => {
            tracing::debug!(
                "`mesh-llm download --draft {model}` fetches a small model that makes {model} faster"
            );
            None
        }
        KnownDraft::None => None,
    }
}
