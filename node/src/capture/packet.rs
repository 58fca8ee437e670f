//! From a captured packet to the TCP segment in it: Ethernet (with VLAN tags), Linux "any" captures and raw IP; IPv4 and IPv6.
//!
//! Invariant: what is not TCP, or not whole up to the end of its TCP header, is none.

use super::file::Packet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const TCP: u8 = 6;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// A TCP segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Who sent it.
    pub from: SocketAddr,
    /// To whom.
    pub to: SocketAddr,
    /// The number of its first byte.
    pub sequence: u32,
    /// It begins a direction; its bytes begin one later.
    pub begins: bool,
    /// It is an answer to the other direction's beginning, or to its bytes.
    pub answers: bool,
    /// It ends the direction, or the connection.
    pub ends: bool,
    /// Its bytes, as far as they were captured.
    pub payload: Vec<u8>,
}

impl Segment {
    /// The segment in a packet.
    pub fn of(packet: &Packet) -> Option<Segment> {
        let bytes = &packet.bytes[..];
        let ip = match packet.link_type {
            0 | 108 => bytes.get(4..)?,
            1 => ethernet(bytes)?,
            12 | 14 | 101 | 228 | 229 => bytes,
            113 => bytes.get(16..)?,
            276 => bytes.get(20..)?,
            _ => return None,
        };
        match ip.first()? >> 4 {
            4 => ipv4(ip),
            6 => ipv6(ip),
            _ => None,
        }
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn ethernet(bytes: &[u8]) -> Option<&[u8]> {
    let mut at = 12;
    loop {
        match u16::from_be_bytes(number(bytes, at)?) {
            0x8100 | 0x88a8 => at += 4,
            0x0800 | 0x86dd => return bytes.get(at + 2..),
            _ => return None,
        }
    }
}

fn ipv4(bytes: &[u8]) -> Option<Segment> {
    let header = usize::from(bytes[0] & 15) * 4;
    let total = usize::from(u16::from_be_bytes(number(bytes, 2)?));
    let fragment = u16::from_be_bytes(number(bytes, 6)?) & 0x3fff;
    if header < 20 || *bytes.get(9)? != TCP || fragment != 0 {
        return None;
    }
    let ends: [[u8; 4]; 2] = [number(bytes, 12)?, number(bytes, 16)?];
    // 0: the network card cuts it later.
    let end = if total == 0 { bytes.len() } else { total.min(bytes.len()) };
    segment(bytes.get(header..end)?, ends.map(|ip| IpAddr::V4(Ipv4Addr::from(ip))))
}

fn ipv6(bytes: &[u8]) -> Option<Segment> {
    let length = usize::from(u16::from_be_bytes(number(bytes, 4)?));
    let ends: [[u8; 16]; 2] = [number(bytes, 8)?, number(bytes, 24)?];
    let end = if length == 0 { bytes.len() } else { (40 + length).min(bytes.len()) };
    let (mut next, mut at) = (*bytes.get(6)?, 40);
    while matches!(next, 0 | 43 | 60) {
        let extension: [u8; 2] = number(bytes, at)?;
        next = extension[0];
        at += (usize::from(extension[1]) + 1) * 8;
    }
    if next != TCP {
        return None;
    }
    segment(bytes.get(at..end)?, ends.map(|ip| IpAddr::V6(Ipv6Addr::from(ip))))
}

fn segment(bytes: &[u8], [from, to]: [IpAddr; 2]) -> Option<Segment> {
    let port = |at| Some(u16::from_be_bytes(number(bytes, at)?));
    let header = usize::from(*bytes.get(12)? >> 4) * 4;
    let flags = *bytes.get(13)?;
    let payload = bytes.get(header.max(20)..)?.to_vec();
    Some(Segment {
        from: SocketAddr::new(from, port(0)?),
        to: SocketAddr::new(to, port(2)?),
        sequence: u32::from_be_bytes(number(bytes, 4)?),
        begins: flags & SYN != 0,
        answers: flags & ACK != 0,
        ends: flags & (FIN | RST) != 0,
        payload,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A TCP header, from port 1 to port 2, with these flags, and a payload.
    fn tcp(flags: u8) -> Vec<u8> {
        let mut bytes = vec![0, 1, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0];
        bytes.extend(b"hi");
        bytes
    }

    fn over(link_type: u32, header: &[u8]) -> Option<Segment> {
        let mut bytes = header.to_vec();
        bytes.extend(tcp(SYN | ACK));
        // What pads a short Ethernet frame is not of the segment.
        bytes.extend([0; 4]);
        Segment::of(&Packet { time_ns: 0, link_type, bytes })
    }

    #[test]
    fn a_segment_is_found_in_ethernet_with_a_vlan_and_ipv4() {
        let mut header = vec![0; 12];
        header.extend([0x81, 0, 0, 5, 8, 0]);
        header.extend([0x45, 0, 0, 42, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let segment = over(1, &header).unwrap();
        assert_eq!(
            (segment.from.to_string(), segment.to.to_string()),
            ("10.0.0.1:1".into(), "10.0.0.2:2".into())
        );
        assert_eq!((segment.sequence, &segment.payload[..]), (9, &b"hi"[..]));
        assert!(segment.begins && segment.answers && !segment.ends);
        header[12..16].copy_from_slice(&[0x08, 0x06, 0, 0]);
        assert_eq!(over(1, &header), None);
    }

    #[test]
    fn a_segment_is_found_behind_the_extensions_of_ipv6() {
        let mut header = vec![0x60, 0, 0, 0, 0, 30, 0, 64];
        header.extend([0; 15]);
        header.push(1);
        header.extend([0; 15]);
        header.push(2);
        header.extend([6, 0, 0, 0, 0, 0, 0, 0]);
        let segment = over(101, &header).unwrap();
        assert_eq!((segment.from.to_string(), &segment.payload[..]), ("[::1]:1".into(), &b"hi"[..]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_segment_or_none(link_type in prop::sample::select(vec![0u32, 1, 101, 113, 276]), bytes in prop::collection::vec(any::<u8>(), 0..100), first in 0x40u8..0x6f) {
            let mut bytes = bytes;
            if link_type == 101 && !bytes.is_empty() {
                bytes[0] = first;
            }
            let _ = Segment::of(&Packet { time_ns: 0, link_type, bytes });
        }
    }
}
