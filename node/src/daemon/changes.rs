//! Changes of the cluster table, as they are asked for on the admin socket.

use super::rekeying::Rekeying;
use crate::admin::server::refuse_because;
use admin::wire::{Answer, ChangeWanted, DescribeWanted, TokenWanted, Why, Wish};
use base::NodeId;
use membership::{Error, Handle};
use std::time::Duration;

/// Has the cluster decide, and tells how it did.
pub async fn answer(membership: &Handle, rekeying: &Rekeying, wanted: ChangeWanted) -> Answer {
    let unknown = || {
        refuse_because(Why::Unknown, "a change that this ssid does not know: it is older than the command")
    };
    let Some(wish) = wanted.wish else { return unknown() };
    if let Wish::Token(wanted) = wish {
        return token(rekeying, wanted).await;
    }
    match decide(membership, wish).await {
        Ok(true) => Answer::default(),
        Ok(false) => unknown(),
        Err(error) => refuse_because(kind(&error), error),
    }
}

/// Has a token made.
async fn token(rekeying: &Rekeying, wanted: TokenWanted) -> Answer {
    match rekeying.invite(Duration::from_secs(wanted.seconds.into()), wanted.uses).await {
        Ok(token) => Answer { token: token.text(), ..Answer::default() },
        Err(error) => refuse_because(kind(&error), error),
    }
}

/// False: that is nothing that can be decided here.
async fn decide(membership: &Handle, wish: Wish) -> Result<bool, Error> {
    match wish {
        Wish::Remove(node) => membership.remove(NodeId(node)).await?,
        Wish::Rename(wish) => membership.rename(NodeId(wish.node), &wish.name).await?,
        Wish::Drain(wish) => membership.drain(NodeId(wish.node), wish.drain).await?,
        Wish::Voters(count) => membership.set_voters(count).await?,
        Wish::ReplaceVoter(wish) => membership.replace_voter(NodeId(wish.old), NodeId(wish.new)).await?,
        Wish::Describe(DescribeWanted { node, property }) => {
            let property = property.unwrap_or_default();
            membership.set_info(NodeId(node), &property.key, &property.value).await?;
        }
        Wish::Token(_) => return Ok(false),
    }
    Ok(true)
}

fn kind(error: &Error) -> Why {
    match error {
        Error::Refused(_) => Why::Invalid,
        Error::Undecided(_) => Why::NoQuorum,
        _ => Why::Failed,
    }
}
