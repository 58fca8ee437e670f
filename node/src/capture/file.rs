//! The files: pcap, and the blocks of pcapng that hold packets; read as they come, so that a live capture can be piped in.

use std::io::{self, Read};

/// A packet longer than this is none: no file is believed that says so.
const PACKET_BYTES_MAX: usize = 16 << 20;

/// A packet as it was captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// When: nanoseconds since 1970; 0 where the file does not say.
    pub time_ns: u64,
    /// What its first header is: a LINKTYPE number of tcpdump.org.
    pub link_type: u32,
    /// The bytes, as far as they were captured.
    pub bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    link_type: u32,
    /// Nanoseconds are `ticks * 10^9 / per_second`.
    per_second: u64,
}

#[derive(Debug)]
enum Format {
    Pcap(Interface),
    Pcapng(Vec<Interface>),
}

/// A capture that is being read.
pub struct Capture<R> {
    source: R,
    big_endian: bool,
    format: Format,
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a capture that tcpdump would write: {what}"))
}

impl<R: Read> Capture<R> {
    /// Reads the beginning.
    ///
    /// # Errors
    /// It cannot be read, or is neither pcap nor pcapng.
    pub fn open(mut source: R) -> io::Result<Capture<R>> {
        let mut magic = [0; 4];
        source.read_exact(&mut magic)?;
        let mut capture = Capture { source, big_endian: false, format: Format::Pcapng(Vec::new()) };
        let per_second = match magic {
            [0xd4, 0xc3, 0xb2, 0xa1] | [0xa1, 0xb2, 0xc3, 0xd4] => 1_000_000,
            [0x4d, 0x3c, 0xb2, 0xa1] | [0xa1, 0xb2, 0x3c, 0x4d] => 1_000_000_000,
            [0x0a, 0x0d, 0x0d, 0x0a] => {
                capture.section()?;
                return Ok(capture);
            }
            _ => return Err(broken("it begins otherwise")),
        };
        capture.big_endian = magic[0] == 0xa1;
        let head = capture.bytes(20)?;
        // The upper bits tell of checksums behind each packet, which nobody writes.
        let link_type = capture.u32(&head, 16) & 0x0fff_ffff;
        capture.format = Format::Pcap(Interface { link_type, per_second });
        Ok(capture)
    }

    /// The next packet; none at the end, which may be in the middle of one.
    ///
    /// # Errors
    /// The file cannot be read, or makes no sense.
    pub fn next_packet(&mut self) -> io::Result<Option<Packet>> {
        let packet = match &self.format {
            Format::Pcap(interface) => {
                let interface = *interface;
                self.pcap(interface)
            }
            Format::Pcapng(_) => self.pcapng(),
        };
        match packet {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            packet => packet.map(Some),
        }
    }

    fn bytes(&mut self, length: usize) -> io::Result<Vec<u8>> {
        if length > PACKET_BYTES_MAX {
            return Err(broken("a length that no packet has"));
        }
        let mut bytes = vec![0; length];
        self.source.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// The number at this place, which must be there.
    fn u32(&self, bytes: &[u8], at: usize) -> u32 {
        let number =
            bytes.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).unwrap_or_default();
        if self.big_endian { u32::from_be_bytes(number) } else { u32::from_le_bytes(number) }
    }

    fn u16(&self, bytes: &[u8], at: usize) -> u16 {
        let number =
            bytes.get(at..at + 2).and_then(|bytes| <[u8; 2]>::try_from(bytes).ok()).unwrap_or_default();
        if self.big_endian { u16::from_be_bytes(number) } else { u16::from_le_bytes(number) }
    }

    fn pcap(&mut self, interface: Interface) -> io::Result<Packet> {
        let head = self.bytes(16)?;
        let (seconds, ticks) = (u64::from(self.u32(&head, 0)), u64::from(self.u32(&head, 4)));
        let length = self.u32(&head, 8) as usize;
        let time_ns = seconds * 1_000_000_000 + ticks * (1_000_000_000 / interface.per_second);
        Ok(Packet { time_ns, link_type: interface.link_type, bytes: self.bytes(length)? })
    }

    /// A section's header, whose type has been read: from here on numbers are in its order.
    fn section(&mut self) -> io::Result<()> {
        let head = self.bytes(8)?;
        self.big_endian = match head[4..8] {
            [0x4d, 0x3c, 0x2b, 0x1a] => false,
            [0x1a, 0x2b, 0x3c, 0x4d] => true,
            _ => return Err(broken("a section in no order of bytes")),
        };
        let length = self.u32(&head, 0) as usize;
        self.bytes(length.checked_sub(12).ok_or_else(|| broken("a section shorter than any"))?)?;
        self.format = Format::Pcapng(Vec::new());
        Ok(())
    }

    fn pcapng(&mut self) -> io::Result<Packet> {
        loop {
            let kind = self.bytes(4)?;
            if kind == [0x0a, 0x0d, 0x0d, 0x0a] {
                self.section()?;
                continue;
            }
            let length = self.bytes(4)?;
            let length = (self.u32(&length, 0) as usize)
                .checked_sub(12)
                .ok_or_else(|| broken("a block shorter than any"))?;
            let body = self.bytes(length)?;
            self.bytes(4)?;
            match self.u32(&kind, 0) {
                1 => self.interface(&body),
                3 => return self.packet(&body, 0, 0, 4),
                6 => {
                    let ticks = u64::from(self.u32(&body, 4)) << 32 | u64::from(self.u32(&body, 8));
                    return self.packet(&body, self.u32(&body, 0) as usize, ticks, 20);
                }
                _ => {}
            }
        }
    }

    fn interface(&mut self, body: &[u8]) {
        let mut interface = Interface { link_type: self.u16(body, 0).into(), per_second: 1_000_000 };
        let mut at = 8;
        while at + 4 <= body.len() {
            let (code, length) = (self.u16(body, at), usize::from(self.u16(body, at + 2)));
            if let (9, Some(resolution)) = (code, body.get(at + 4)) {
                let power = u32::from(resolution & 0x7f);
                let per_second =
                    if resolution & 0x80 == 0 { 10u64.checked_pow(power) } else { 2u64.checked_pow(power) };
                interface.per_second = per_second.unwrap_or(1_000_000);
            }
            at += 4 + length.next_multiple_of(4);
        }
        if let Format::Pcapng(interfaces) = &mut self.format {
            interfaces.push(interface);
        }
    }

    fn packet(&self, body: &[u8], interface: usize, ticks: u64, at: usize) -> io::Result<Packet> {
        let Format::Pcapng(interfaces) = &self.format else { return Err(broken("a block in a pcap")) };
        let interface = interfaces.get(interface).ok_or_else(|| broken("a packet of no interface"))?;
        let captured = if at == 20 { self.u32(body, 12) } else { self.u32(body, 0) } as usize;
        let rest = body.get(at..).ok_or_else(|| broken("a packet shorter than its header"))?;
        let ns = u128::from(ticks) * 1_000_000_000 / u128::from(interface.per_second.max(1));
        let time_ns = u64::try_from(ns).unwrap_or(u64::MAX);
        Ok(Packet {
            time_ns,
            link_type: interface.link_type,
            bytes: rest[..captured.min(rest.len())].to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8]) -> io::Result<Vec<Packet>> {
        let mut capture = Capture::open(bytes)?;
        let mut packets = Vec::new();
        while let Some(packet) = capture.next_packet()? {
            packets.push(packet);
        }
        Ok(packets)
    }

    fn be(numbers: &[u32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
    }

    #[test]
    fn pcap_of_either_order_is_read_and_may_end_anywhere() {
        let mut bytes = be(&[0xa1b2_c3d4, 0x0002_0004, 0, 0, 65_535, 101, 3, 5, 2, 2]);
        bytes.extend(b"hi");
        let packet = Packet { time_ns: 3_000_005_000, link_type: 101, bytes: b"hi".to_vec() };
        assert_eq!(all(&bytes).unwrap(), std::slice::from_ref(&packet));
        bytes.extend([0; 7]);
        assert_eq!(all(&bytes).unwrap(), [packet]);
    }

    #[test]
    fn pcapng_is_read_with_the_clock_of_its_interface() {
        let mut bytes = be(&[0x0a0d_0d0a, 28, 0x1a2b_3c4d, 0x0001_0000, u32::MAX, u32::MAX, 28]);
        // An interface of link type 1 that counts nanoseconds, a block that nobody knows, a packet.
        bytes.extend(be(&[1, 32, 0x0001_0000, 65_535, 0x0009_0001, 0x0900_0000, 0, 32]));
        bytes.extend(be(&[99, 12, 12]));
        bytes.extend(be(&[6, 36, 0, 0, 77, 2, 2]));
        bytes.extend(b"hi\0\0");
        bytes.extend(be(&[36]));
        assert_eq!(all(&bytes).unwrap(), [Packet { time_ns: 77, link_type: 1, bytes: b"hi".to_vec() }]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_capture_or_none(head in prop::sample::select(vec![0xa1b2_c3d4u32, 0x0a0d_0d0a]), bytes in prop::collection::vec(0u8..40, 0..300)) {
            let mut file = be(&[head]);
            if head == 0x0a0d_0d0a {
                file.extend(be(&[16, 0x1a2b_3c4d, 0, 1, 20, 0x0001_0000, 0, 20]));
            }
            file.extend(&bytes);
            let _ = all(&file);
            let _ = all(&bytes);
        }
    }
}
