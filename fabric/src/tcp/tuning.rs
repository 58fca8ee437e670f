//! Socket options.

use super::sys;
use rustix::io::Errno;
use rustix::net::sockopt;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// Sets a TCP connection up: nothing waits for more to send, and an end that fell silent for `silence` is noticed. Of a stream that is
/// not TCP nothing is asked.
///
/// # Errors
/// The operating system's, when the connection is gone already.
pub fn tune(stream: impl AsFd, silence: Duration) -> io::Result<()> {
    const PROBES: u32 = 4;
    let stream = stream.as_fd();
    match sockopt::set_tcp_nodelay(stream, true) {
        Err(Errno::OPNOTSUPP | Errno::NOPROTOOPT) => return Ok(()),
        result => result?,
    }
    let silence_ms = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
    let second = Duration::from_secs(1);
    sockopt::set_tcp_keepidle(stream, (silence / 2).max(second))?;
    sockopt::set_tcp_keepintvl(stream, (silence / (2 * PROBES)).max(second))?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_user_timeout(stream, silence_ms)?;
    Ok(())
}

/// A peer whose answer takes no longer is near.
const NEAR: Duration = Duration::from_micros(150);
/// Bytes of the send buffer to a near peer.
const NEAR_SEND_BYTES: usize = 256 << 10;

/// Fits the send buffer to how far the other end is. What the kernel would let it grow to is measured for far ends: to a near one it
/// only puts megabytes between sender and receiver, which have left every cache when they are read. (Measured on one host: a third less
/// processor time for each byte.) True if it is near.
pub fn fit(stream: impl AsFd) -> bool {
    let stream = stream.as_fd();
    let near = sys::round_trip(stream).is_some_and(|trip| trip <= NEAR);
    if near && let Err(error) = sockopt::set_socket_send_buffer_size(stream, NEAR_SEND_BYTES) {
        tracing::debug!(%error, "a send buffer stays as it is");
    }
    near
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_tuned_and_another_stream_left_alone() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        tune(&stream, Duration::from_secs(8)).unwrap();
        assert!(stream.nodelay().unwrap());
        assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), 8000);
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), Duration::from_secs(4));
        assert!(sys::round_trip(stream.as_fd()).is_some(), "the handshake is a first measure");
        fit(&stream);
        let (local, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        tune(&local, Duration::from_secs(8)).unwrap();
        assert_eq!(sys::round_trip(local.as_fd()), None);
    }
}
