//! Machines that come with a join token: the token is made, checked, spent, and answered with the cluster key.
//!
//! ```text
//!  machine  --Enter, under the joining key-->  any member: proof, expiry, uses
//!                                              --Enter-->  master: ticket spent and row added, in one transition
//!           <--view, wrapped cluster key-----
//! ```
//!
//! Invariants: whoever has proved a joining key only is heard with an [`Act::Enter`] and nothing else; while the cluster's key is being
//! changed nobody comes in by token, so that nobody is given a key that is about to end.

use crate::command::{Act, Command, Enter};
use crate::handle::{ATTEMPT_INTERVAL, CHANGE_DEADLINE, Handle};
use crate::shell::{Shared, random_number};
use crate::talk::{Answer, Ask, Change, Decided, Request, Say};
use crate::token::{MachineNumber, SEEDS_MAX, Ticket, TicketId, Token, TokenError, wrap_for};
use crate::wire::{Node, View};
use crate::{Error, clock};
use base::NodeId;
use bytes::Bytes;
use fabric::{ClusterKey, Endpoint, Message, NEWCOMER, Priority, Refusal, service};
use prost::Message as _;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long one member may take to answer a machine before it asks the next one.
const SEED_WITHIN: Duration = Duration::from_secs(3);
/// For so long a joining key that no member takes is tried again: the table with its ticket may be on its way to them.
const GRACE: Duration = Duration::from_secs(1);

/// What a machine has when it was let in.
#[derive(Clone, Debug)]
pub struct Entered {
    /// The node that it is now.
    pub node: NodeId,
    /// The view that it is in, DOWN until its membership is started.
    pub view: View,
    /// The cluster key.
    pub key: ClusterKey,
}

/// The wall clock, seconds since 1970.
fn now() -> u64 {
    clock::wall_ms() / 1_000
}

fn refused(error: TokenError) -> Error {
    Error::Refused(error.to_string())
}

impl Handle {
    /// Makes a token with which `uses` machines may join within `life`. On return the ticket is agreed, and in this node's view.
    ///
    /// # Errors
    /// [`Error::Refused`] if there are too many tickets, or life or uses make no sense, or the cluster's key is being changed;
    /// [`Error::Undecided`].
    pub async fn token_create(&self, life: Duration, uses: u32) -> Result<Token, Error> {
        let key = settled_key(self.shared()).map_err(Error::Refused)?;
        let id = TicketId::generate().map_err(refused)?;
        let ticket = Ticket::new(id, now() + life.as_secs(), uses);
        let decided = self.decide(Act::Ticket(ticket.clone())).await?;
        let number = decided.outcome.unwrap_or_default().number;
        let mut views = self.watch();
        let known = views.wait_for(|view| view.epoch >= number);
        let known = tokio::time::timeout(CHANGE_DEADLINE, known).await.ok().and_then(Result::ok);
        let view = known
            .map(|view| view.clone())
            .ok_or_else(|| Error::Undecided("the ticket was made, but this node is not told of it".into()))?;
        Token::new(&key, &ticket, &view.cluster, &seeds(&view, self.local())).map_err(refused)
    }
}

/// Where a machine may ask: this node, then the voters, then others that are alive.
fn seeds(view: &View, local: &Node) -> Vec<SocketAddr> {
    let mut rows: Vec<&Node> = view.nodes.iter().filter(|row| row.is_alive()).collect();
    rows.sort_by_key(|row| (row.id != local.id, !view.voters.contains(&row.id), row.id));
    rows.into_iter().filter_map(Node::control_addr).take(SEEDS_MAX).collect()
}

/// The cluster key, unless it is being changed.
fn settled_key(shared: &Shared) -> Result<ClusterKey, String> {
    match shared.keys.lock().unwrap_or_else(PoisonError::into_inner).as_slice() {
        [key] => Ok(ClusterKey::from_bytes(*key)),
        _ => Err("the cluster's key is being changed: try again when `ssi cluster rekey` is through".into()),
    }
}

/// Answers a machine that has proved a joining key.
pub(crate) async fn answer(shared: &Arc<Shared>, request: Request) -> Answer {
    let admitted = match request.ask {
        Some(Ask::Change(Change {
            command: Some(Command { act: Some(Act::Enter(enter)), .. }),
            session,
            ..
        })) => admit(shared, enter, session).await,
        _ => Err(Error::Refused("a machine with a join token can join and do nothing else".into())),
    };
    match admitted {
        Ok(decided) => Say::Decided(decided).answer(),
        Err(Error::Undecided(_)) => Say::NotMaster(0).answer(),
        Err(error) => Say::Refused(error.to_string()).answer(),
    }
}

async fn admit(shared: &Arc<Shared>, enter: Enter, session: u64) -> Result<Decided, Error> {
    let key = settled_key(shared).map_err(Error::Refused)?;
    let (Some(id), Ok(machine)) =
        (TicketId::read(&enter.ticket), MachineNumber::try_from(enter.machine.as_slice()))
    else {
        return Err(Error::Malformed("a ticket's name and a machine's number have 16 bytes".into()));
    };
    let tickets = shared.history.view().tickets.clone();
    tickets.check(&key, id, &machine, &enter.row, &enter.proof, now()).map_err(refused)?;
    let ticket = tickets.ticket(id).ok_or_else(|| refused(TokenError::Unknown(id)))?;
    let command = Some(Command { at_ms: 0, act: Some(Act::Enter(enter)) });
    let ask = Ask::Change(Change { command, session, forwarded: false });
    let decided = Handle::new(shared.clone()).change(ask).await?;
    tracing::info!(ticket = %id, node = decided.outcome.as_ref().map_or(0, |it| it.node), "a machine joined with a token");
    Ok(Decided { key: wrap_for(&key, ticket).map_err(refused)?.into(), ..decided })
}

/// Asks the cluster, through the members that the token names, to take this machine in as `row` (its id is ignored). `endpoint` must
/// speak as [`NEWCOMER`] and prove the token's key.
///
/// # Errors
/// [`Error::Refused`] with the reason of the cluster (or of all members: the token is good no more); [`Error::Undecided`] with every address
/// that was tried, if nobody decided in time.
pub async fn enter(
    endpoint: &Endpoint,
    token: &Token,
    row: &Node,
    deadline: Duration,
) -> Result<Entered, Error> {
    let (began, head) = (Instant::now(), entry(token, row)?);
    let mut tried: BTreeMap<SocketAddr, String> = BTreeMap::new();
    let mut locked_out = BTreeMap::new();
    let mut attempts = tokio::time::interval(ATTEMPT_INTERVAL);
    for seed in token.seeds.iter().copied().cycle() {
        attempts.tick().await;
        let left = deadline.saturating_sub(began.elapsed());
        if left.is_zero() {
            break;
        }
        let message = Message { head: head.clone(), bulk: Bytes::new() };
        let within = left.min(SEED_WITHIN);
        let call = endpoint.call_address(seed, service::MEMBERSHIP, Priority::Control, message, within);
        locked_out.remove(&seed);
        match call.await {
            Ok(reply) => match taken(token, reply.head)? {
                Some(entered) => return Ok(entered),
                None => drop(tried.insert(seed, "has no majority of the nodes behind it".into())),
            },
            Err(fabric::Error::Refused { why: Refusal::WrongCluster, .. }) => {
                let why = format!("the token is of cluster {}, and {seed} belongs to another", token.cluster);
                return Err(Error::Refused(why));
            }
            Err(error) => {
                if matches!(error, fabric::Error::Refused { why: Refusal::WrongKey, .. }) {
                    locked_out.insert(seed, ());
                }
                tried.insert(seed, error.to_string());
            }
        }
        if locked_out.len() == tried.len() && tried.len() == token.seeds.len() && began.elapsed() > GRACE {
            return Err(Error::Refused(no_good(token)));
        }
    }
    let tried: Vec<String> = tried.iter().map(|(seed, why)| format!("{seed} ({why})")).collect();
    Err(Error::Undecided(format!("tried {}", tried.join(", "))))
}

/// The request of a machine that names itself by a fresh number.
fn entry(token: &Token, row: &Node) -> Result<Bytes, Error> {
    let TicketId(machine) = TicketId::generate().map_err(refused)?;
    let row = row.encode_to_vec();
    let proof = token.proof(&machine, &row).to_vec();
    let enter = Enter { row, ticket: token.id.0.to_vec(), machine: machine.to_vec(), proof };
    let command = Some(Command { at_ms: 0, act: Some(Act::Enter(enter)) });
    let ask = Some(Ask::Change(Change { command, session: random_number(), forwarded: false }));
    Ok(Request { sender: NEWCOMER.0, incarnation: 0, epoch: 0, ask }.encode_to_vec().into())
}

/// What an answer gives; `None`: ask again.
fn taken(token: &Token, answer: Bytes) -> Result<Option<Entered>, Error> {
    let malformed = |why: &str| Error::Malformed(why.into());
    match Answer::decode(answer).map_err(|error| Error::Malformed(error.to_string()))?.say {
        Some(Say::Decided(decided)) => Ok(Some(Entered {
            node: NodeId(decided.outcome.unwrap_or_default().node),
            view: decided.view.ok_or_else(|| malformed("no view"))?,
            key: token.open(&decided.key).map_err(refused)?,
        })),
        Some(Say::Refused(why)) => Err(Error::Refused(why)),
        _ => Ok(None),
    }
}

/// Why no member takes the joining key.
fn no_good(token: &Token) -> String {
    if now() >= token.expires {
        return TokenError::Expired(token.id).to_string();
    }
    format!(
        "no member of cluster {} takes this token: it was revoked, or the cluster's key was changed since; make another one with `ssi addnode`",
        token.cluster
    )
}
