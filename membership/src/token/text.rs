//! A token as text: what is printed, copied and typed.
//!
//! ```text
//!  "ssi1" and, in base32 (RFC 4648, small letters, no padding), these bytes; numbers little-endian:
//!
//!  0         1    17    49        57       58              n        n+1                          m
//!  | version | id | key | expires | length | cluster (UTF-8) | seeds | {family, address, port} * | checksum |
//!  | u8 = 1  | 16 | 32  | u64     | u8     |                 | u8    | u8 4 | 6, 4 | 16, u16    | 4 bytes  |
//! ```
//!
//! The checksum is the beginning of the SHA-256 of everything before it: it finds slips of the hand, not forgers.
//!
//! Invariant: what [`Token::parse`] takes is what [`Token::text`] makes, white space around and between groups apart.

use super::{CLUSTER_BYTES_MAX, SEEDS_MAX, TicketId, Token, TokenError};
use fabric::ClusterKey;
use sha2::{Digest, Sha256};
use std::net::{IpAddr, SocketAddr};

/// How a token begins.
pub const PREFIX: &str = "ssi1";
/// The longest token, characters.
pub const TEXT_BYTES_MAX: usize = 1_024;

const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

impl Token {
    /// The text. It is the secret itself.
    pub fn text(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.id.0);
        bytes.extend_from_slice(self.key.as_bytes());
        bytes.extend_from_slice(&self.expires.to_le_bytes());
        bytes.push(self.cluster.len() as u8);
        bytes.extend_from_slice(self.cluster.as_bytes());
        bytes.push(self.seeds.len() as u8);
        for seed in &self.seeds {
            match seed.ip() {
                IpAddr::V4(ip) => bytes.extend([4].into_iter().chain(ip.octets())),
                IpAddr::V6(ip) => bytes.extend([6].into_iter().chain(ip.octets())),
            }
            bytes.extend_from_slice(&seed.port().to_le_bytes());
        }
        bytes.extend_from_slice(&checksum(&bytes));
        format!("{PREFIX}{}", spelled(&bytes))
    }

    /// The token in a text.
    ///
    /// # Errors
    /// [`TokenError`], which says where the text is wrong but not what it is.
    pub fn parse(text: &str) -> Result<Token, TokenError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(TokenError::Length(text.len()));
        }
        let letters: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let letters = letters.to_ascii_lowercase();
        let body = letters.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let bytes = read(body)?;
        let Some((fields, sum)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else {
            return Err(TokenError::Checksum);
        };
        if checksum(fields) != *sum {
            return Err(TokenError::Checksum);
        }
        let mut fields = Fields(fields);
        let version = fields.byte("version")?;
        if version != VERSION {
            return Err(TokenError::Version(version));
        }
        let token = fields.token()?;
        if !fields.0.is_empty() { Err(TokenError::Field("end")) } else { Ok(token) }
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&digest[..CHECKSUM_BYTES]);
    sum
}

/// What has not been read yet.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take(&mut self, length: usize, what: &'static str) -> Result<&[u8], TokenError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(TokenError::Field(what))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], TokenError> {
        self.take(N, what)?.try_into().map_err(|_| TokenError::Field(what))
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, TokenError> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    fn token(&mut self) -> Result<Token, TokenError> {
        let id = TicketId(self.array("ticket")?);
        let key = ClusterKey::from_bytes(self.array("key")?);
        let expires = u64::from_le_bytes(self.array("time")?);
        let length = usize::from(self.byte("name of a cluster")?);
        let name = self.take(length, "name of a cluster")?;
        let cluster =
            std::str::from_utf8(name).map_err(|_| TokenError::Field("name of a cluster"))?.to_owned();
        if cluster.is_empty() || cluster.len() > CLUSTER_BYTES_MAX {
            return Err(TokenError::Field("name of a cluster"));
        }
        let count = usize::from(self.byte("list of seeds")?);
        if count == 0 || count > SEEDS_MAX {
            return Err(TokenError::Field("list of one to eight seeds"));
        }
        let seeds = (0..count).map(|_| self.seed()).collect::<Result<_, _>>()?;
        Ok(Token { id, key, expires, cluster, seeds })
    }

    fn seed(&mut self) -> Result<SocketAddr, TokenError> {
        let ip: IpAddr = match self.byte("seed")? {
            4 => self.array::<4>("seed")?.into(),
            6 => self.array::<16>("seed")?.into(),
            _ => return Err(TokenError::Field("seed")),
        };
        Ok(SocketAddr::new(ip, u16::from_le_bytes(self.array("seed")?)))
    }
}

fn spelled(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut kept, mut bits) = (0u32, 0);
    for byte in bytes {
        (kept, bits) = ((kept << 8) | u32::from(*byte), bits + 8);
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(kept >> bits) as usize & 31]));
        }
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(kept << (5 - bits)) as usize & 31]));
    }
    text
}

fn read(text: &str) -> Result<Vec<u8>, TokenError> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut kept, mut bits) = (0u32, 0);
    for (at, letter) in text.chars().enumerate() {
        let value = match letter {
            'a'..='z' => letter as u32 - 'a' as u32,
            '2'..='7' => letter as u32 - '2' as u32 + 26,
            _ => return Err(TokenError::Character(PREFIX.len() + at + 1)),
        };
        (kept, bits) = ((kept << 5) | value, bits + 5);
        if bits >= 8 {
            bits -= 8;
            bytes.push((kept >> bits) as u8);
        }
    }
    // What is left over are fewer bits than a letter has, all 0: else something was changed.
    if bits >= 5 || kept & ((1 << bits) - 1) != 0 { Err(TokenError::Checksum) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(cluster: &str, seeds: Vec<SocketAddr>) -> Token {
        let key = ClusterKey::from_bytes([0xab; 32]);
        Token { id: TicketId([7; 16]), key, expires: 1_900_000_000, cluster: cluster.into(), seeds }
    }

    fn sample() -> Token {
        token("blue", vec!["10.0.0.1:7100".parse().unwrap(), "[fd00::2]:7100".parse().unwrap()])
    }

    #[test]
    fn a_token_is_read_as_it_was_printed() {
        let text = sample().text();
        assert!(text.starts_with("ssi1") && text.len() < 200, "{}", text.len());
        assert_eq!(Token::parse(&text), Ok(sample()));
        let typed = format!("  {}\n{} ", &text[..50], text[50..].to_uppercase());
        assert_eq!(Token::parse(&typed), Ok(sample()), "white space and capitals do no harm");
    }

    #[test]
    fn what_is_wrong_is_said_and_the_token_is_not() {
        let text = sample().text();
        assert_eq!(Token::parse("hello"), Err(TokenError::Prefix));
        assert_eq!(Token::parse(""), Err(TokenError::Prefix));
        assert_eq!(Token::parse("ssi1"), Err(TokenError::Checksum));
        assert_eq!(Token::parse(&text[..text.len() - 1]), Err(TokenError::Checksum));
        assert_eq!(Token::parse(&text.replacen("ssi1", "ssi1!", 1)), Err(TokenError::Character(5)));
        assert_eq!(Token::parse(&"s".repeat(2_000)), Err(TokenError::Length(2_000)));
        assert!(!format!("{:?}", sample()).contains("abab"));
    }

    #[test]
    fn a_later_version_is_named() {
        let bytes = [2, 1, 2, 3];
        let text = spelled(&[bytes.as_slice(), &checksum(&bytes)].concat());
        assert_eq!(Token::parse(&format!("{PREFIX}{text}")), Err(TokenError::Version(2)));
    }

    proptest! {
        #[test]
        fn one_wrong_letter_is_found(at in 0usize..100, letter in 0usize..32) {
            let text = sample().text();
            let at = PREFIX.len() + at;
            let changed = format!("{}{}{}", &text[..at], char::from(ALPHABET[letter]), &text[at + 1..]);
            if changed != text {
                prop_assert!(Token::parse(&changed).is_err());
            }
        }

        #[test]
        fn any_text_is_a_token_or_an_error(text in "(ssi1)?[a-z2-7 ]{0,200}|.{0,60}") {
            if let Ok(token) = Token::parse(&text) {
                prop_assert_eq!(Token::parse(&token.text()), Ok(token));
            }
        }

        /// Right checksums around any bytes: the fields themselves must hold.
        #[test]
        fn any_fields_are_a_token_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..120), version in 0u8..3) {
            let mut fields = vec![version];
            fields.extend(bytes);
            let text = spelled(&[fields.as_slice(), &checksum(&fields)].concat());
            if let Ok(token) = Token::parse(&format!("{PREFIX}{text}")) {
                prop_assert_eq!(Token::parse(&token.text()), Ok(token));
            }
        }
    }
}
