//! The steps of a setup: both ends prove themselves and agree on terms.

use super::setups::{Phase, Proved, Setup, SetupError, Whose};
use super::{Alarm, Engine};
use crate::provider::Provider;
use crate::setup::{Dialling, Open, Opened, Security, Step, Welcome, refusal};
use crate::{Peer, Refusal};
use base::time::Time;
use std::io;

impl Engine {
    /// Goes on with a setup as far as it goes.
    pub(super) fn step(&mut self, number: u64, now: Time) {
        let Some(mut setup) = self.setups.take(number) else { return };
        if matches!(setup.phase, Phase::Passing(..)) {
            return self.pass(setup, now);
        }
        if matches!(setup.phase, Phase::Trying(_)) {
            return self.try_device(setup, now);
        }
        match self.advance(&mut setup, now) {
            Ok(None) => self.setups.insert(setup),
            Ok(Some(proved)) => self.raise(setup, proved, now),
            Err(error) => self.setup_failed(setup, error, now),
        }
    }

    fn advance(&mut self, setup: &mut Setup, now: Time) -> Result<Option<Proved>, SetupError> {
        if matches!(setup.phase, Phase::Connecting) {
            if !setup.is_connected()? {
                return Ok(None);
            }
            let (dialling, first) = Dialling::begin(&self.identity);
            (setup.phase, setup.output) = (Phase::Dialling(Box::new(dialling)), first);
            // Now the accepting end has its time to prove itself.
            setup.late = now + self.limits.handshake;
            self.timers.set(setup.late, Alarm::Setup(setup.number));
        }
        loop {
            let sent = setup.send()?;
            // What comes behind the welcome is the link's: on a socket of this host it carries descriptors.
            if !matches!(setup.phase, Phase::Welcoming(..)) {
                setup.receive()?;
            }
            let proved = match &mut setup.phase {
                Phase::Dialling(_) => self.dialling(setup)?,
                Phase::Accepting(_) => self.accepting(setup)?,
                Phase::Welcoming(..) if sent => Some(welcomed(setup)),
                Phase::Welcoming(..) | Phase::Connecting | Phase::Passing(..) | Phase::Trying(_) => None,
            };
            match proved {
                Some(Some(proved)) => return Ok(Some(proved)),
                Some(None) => {}
                None if setup.ended => return Err(left(&setup.whose)),
                None => return Ok(None),
            }
        }
    }

    /// `None`: it waits. `Some(None)`: a step is done. `Some(Some)`: all of them.
    fn dialling(&mut self, setup: &mut Setup) -> Result<Option<Option<Proved>>, SetupError> {
        let Whose::Ours { remote } = setup.whose else { return Ok(None) };
        let mut terms = self.terms(remote, setup.number)?;
        terms.queue_pair = self.offered(setup, &terms)?;
        let Phase::Dialling(dialling) = &mut setup.phase else { return Ok(None) };
        Ok(match dialling.advance(&mut setup.input, &|_| terms.clone())? {
            Step::More => None,
            Step::Send(bytes) => {
                setup.output.extend(bytes);
                Some(None)
            }
            Step::Done(dialled) => Some(Some(Proved::Dialled(dialled))),
        })
    }

    pub(super) fn terms(&mut self, at: usize, number: u64) -> Result<Open, SetupError> {
        let (encrypted, host) = (self.security == Security::Encrypted, self.host.clone());
        let found = self.remotes.get_mut(at).and_then(|remote| {
            let (way, lane) = remote.way_of_setup(number)?;
            Some((remote.session, way, lane, remote.ways[way].provider))
        });
        let (session, way, lane, provider) =
            found.ok_or_else(|| io::Error::other("nobody wants this connection any more"))?;
        Ok(Open {
            session,
            lane: lane as u32,
            provider: provider_number(provider),
            encrypted,
            host,
            queue_pair: None,
            rail: way as u32,
        })
    }

    fn accepting(&mut self, setup: &mut Setup) -> Result<Option<Option<Proved>>, SetupError> {
        let Phase::Accepting(accepting) = &mut setup.phase else { return Ok(None) };
        match accepting.advance(&mut setup.input, &self.identity)? {
            Step::More => Ok(None),
            Step::Send(bytes) => {
                setup.output.extend(bytes);
                Ok(Some(None))
            }
            Step::Done(opened) => {
                let welcome = self.welcome(&opened, setup)?;
                setup.output.extend(opened.welcome(&welcome));
                if !welcome.refused.is_empty() {
                    // It is told why; what the socket does not take of it is not worth waiting for.
                    let _ = setup.send();
                    return Err(SetupError::Useless(welcome.refused));
                }
                let guest = self.guests.known(opened.peer, opened.open.session);
                let guest = guest.ok_or_else(|| io::Error::other("its session is over already"))?;
                setup.phase = Phase::Welcoming(Box::new(opened), guest);
                Ok(Some(None))
            }
        }
    }

    /// What this end grants to who has proved himself.
    fn welcome(&mut self, opened: &Opened, setup: &Setup) -> Result<Welcome, SetupError> {
        let open = &opened.open;
        if open.lane > 1 {
            return Err(Refusal::Garbage.into());
        }
        let verbs = open.provider == provider_number(Provider::Verbs);
        let provider = match setup.whose {
            Whose::Theirs { local: true, .. } => Provider::Shm,
            _ if verbs => Provider::Verbs,
            _ => Provider::Tcp,
        };
        let carries = open.provider == provider_number(provider) && self.providers_allow(provider);
        let mut refused = if carries { String::new() } else { format!("it does not take {provider} there") };
        let mut queue_pair = None;
        if carries && verbs {
            match self.taken(setup, open) {
                Ok(ours) => queue_pair = Some(ours),
                Err(error) => refused = error.to_string(),
            }
        }
        Ok(Welcome { refused, queue_pair, ..self.granted(opened.peer, open) })
    }

    /// What is granted to a session, which is remembered from here on.
    pub(super) fn granted(&mut self, peer: Peer, open: &Open) -> Welcome {
        for former in self.guests.abandoned(peer, open.session) {
            self.guests.remove(former);
        }
        let resumed = self.guests.known(peer, open.session).is_some();
        let life = self.random();
        let guest = self.guests.enter(peer, open.session, &self.grants, life);
        if !resumed {
            self.await_guest(open.session);
        }
        Welcome {
            resumed,
            life: self.guests.at(guest).map_or(0, |guest| guest.life),
            slots: self.grants.slots.map(u32::from).to_vec(),
            window_kib: self.grants.window_kib.to_vec(),
            encrypted: open.encrypted || self.security == Security::Encrypted,
            host: self.host.clone(),
            shm: self.gate.shm_path(),
            queue_pair: None,
            rails: self.gate.rails(&self.devices),
            refused: String::new(),
        }
    }

    /// A setup takes too long.
    pub(super) fn setup_is_late(&mut self, number: u64, now: Time) {
        let Some(setup) = self.setups.take(number) else { return self.simulated_is_late(number, now) };
        // The alarm of its connecting rings while it already proves itself: the later one counts.
        if matches!(setup.phase, Phase::Dialling(_) | Phase::Trying(_)) && now < setup.late {
            self.setups.insert(setup);
            return;
        }
        let error = match &setup.whose {
            Whose::Ours { .. } => io::Error::from(io::ErrorKind::TimedOut).into(),
            Whose::Theirs { .. } => Refusal::TooSlow.into(),
        };
        self.setup_failed(setup, error, now);
    }

    pub(super) fn setup_failed(&mut self, setup: Setup, error: SetupError, now: Time) {
        let (number, whose) = (setup.number, setup.whose.clone());
        if let (Phase::Accepting(accepting), SetupError::Refused(why), Some(stream)) =
            (&setup.phase, &error, &setup.stream)
            && !accepting.has_answered()
        {
            // A stranger that cannot be told is refused all the same.
            let _ = rustix::net::send(stream, &refusal(*why), rustix::net::SendFlags::NOSIGNAL);
        }
        self.close_setup(setup);
        match whose {
            Whose::Ours { remote } => self.dial_failed(remote, number, error, now),
            Whose::Theirs { from, .. } => match error {
                SetupError::Refused(why) => self.gate.refuse(&from, why),
                SetupError::Io(_) => self.gate.refuse(&from, Refusal::Stranger),
                SetupError::Useless(why) => tracing::debug!(%from, %why, "a link is not taken"),
            },
        }
    }

    /// Drops a setup that nobody wants any more.
    pub(super) fn drop_setup(&mut self, number: u64) {
        if let Some(setup) = self.setups.take(number) {
            self.close_setup(setup);
        }
    }

    pub(super) fn close_setup(&mut self, setup: Setup) {
        self.release(setup.token);
        self.devices.end(setup.number, &mut self.reactor);
        if let Some(stream) = &setup.stream {
            // It may never have been watched.
            let _ = self.reactor.forget(stream);
        }
        if let Phase::Passing(passing, _) = setup.phase {
            passing.close(&mut self.reactor);
        }
    }
}

/// The provider's number in an [`Open`].
pub(super) fn provider_number(provider: Provider) -> u32 {
    match provider {
        Provider::Sim => 0,
        Provider::Shm => 1,
        Provider::Verbs => 2,
        Provider::Tcp => 3,
    }
}

/// The welcome is out.
fn welcomed(setup: &mut Setup) -> Option<Proved> {
    match std::mem::replace(&mut setup.phase, Phase::Connecting) {
        Phase::Welcoming(opened, guest) => Some(Proved::Opened(*opened, guest)),
        _ => None,
    }
}

/// The other end closed before it was through.
fn left(whose: &Whose) -> SetupError {
    match whose {
        Whose::Ours { .. } => io::Error::from(io::ErrorKind::ConnectionReset).into(),
        // Who closes before it has proved anything is a stranger, not a broken connection.
        Whose::Theirs { .. } => Refusal::Stranger.into(),
    }
}
