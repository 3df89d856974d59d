//! `dml token`: who is known to a cluster.

use comfy_table::Cell;
use dml_core::{Kind, Scope};
use dml_net::view::NewToken;

use crate::{
    args::{ScopeArg, TokenCommand},
    connect::Session,
    console::{ago, until},
    failure::Failure,
    listing,
};

pub(crate) async fn run(session: &Session<'_>, command: TokenCommand) -> Result<(), Failure> {
    match command {
        TokenCommand::Add { label, scope, expires } => {
            let scope = match scope {
                ScopeArg::Read => Scope::Read,
                ScopeArg::Write => Scope::Write,
                ScopeArg::Admin => Scope::Admin,
            };
            let token = session.client.create_token(&NewToken { label, scope, expires_in: expires }).await?;
            session.console.show(&token, || {
                let secret = token.secret.as_ref().map(|secret| secret.reveal()).unwrap_or_default();
                session.console.say(
                    "this is not shown again; its holder puts it into DML_TOKEN, or gives it to --token",
                );
                secret.into()
            })
        }
        TokenCommand::Ls(page) => {
            let page = session.client.tokens(page.limit.into(), page.cursor.as_deref()).await?;
            let headings = ["label", "scope", "created", "expires", "id"];
            listing::show(session.console, &page, &headings, "there are no tokens", |token| {
                let expires = token.expires_ms.map_or_else(|| "never".into(), until);
                vec![
                    Cell::new(token.label.as_deref().unwrap_or_default()),
                    Cell::new(token.scope.name()),
                    Cell::new(ago(token.created_ms)),
                    Cell::new(expires),
                    Cell::new(token.id.short()),
                ]
            })
        }
        TokenCommand::Rm { which } => listing::remove(session, Kind::Token, &which).await,
    }
}
