-- A dissector of the fabric's TCP connections for Wireshark and tshark:
--
--   tshark -X lua_script:docs/ssi-fabric.lua -r capture.pcap
--   wireshark: copy it into the folder of personal Lua plugins (Help, About, Folders)
--
-- It knows a connection by its first eight bytes, so the capture must hold the connection's beginning. Frames are shown of connections
-- with security = "authenticated"; of encrypted ones no more than the records' lengths can be seen.
-- The layouts are drawn in fabric/README.md.

local ssi = Proto("ssifab", "SSI fabric")

local KINDS = {
  [0] = "request", "reply", "chunk", "cancel", "taken", "credit", "write", "read", "read-data", "done", "goodbye",
}
local CHANNELS = { [0] = "control", "lock", "meta", "data" }
local VERDICTS = { [0] = "answered", "no-service", "crashed", "unheard", "denied", "revoked", "out-of-bounds" }
local SERVICES = { [0] = "tree", "membership", "processes", "load", "metadata", "objects", "admin", "replog" }
local STATUS = { [0] = "go on", "version", "wrong cluster", "wrong key", "other" }

local f = {
  version_min = ProtoField.uint16("ssifab.version_min", "Oldest version"),
  version_max = ProtoField.uint16("ssifab.version_max", "Newest version"),
  key = ProtoField.uint32("ssifab.key", "Number of the key", base.HEX),
  cluster = ProtoField.uint64("ssifab.cluster", "Number of the cluster", base.HEX),
  status = ProtoField.uint16("ssifab.status", "Status", base.DEC, STATUS),
  sealed = ProtoField.bytes("ssifab.sealed", "Sealed"),
  length = ProtoField.uint24("ssifab.length", "Length"),
  kind = ProtoField.uint8("ssifab.kind", "Kind", base.DEC, KINDS),
  channel = ProtoField.uint8("ssifab.channel", "Channel", base.DEC, CHANNELS),
  service = ProtoField.uint16("ssifab.service", "Service", base.DEC, SERVICES),
  verdict = ProtoField.uint8("ssifab.verdict", "Verdict", base.DEC, VERDICTS),
  more = ProtoField.bool("ssifab.more", "More follows", 8, nil, 1),
  one_way = ProtoField.bool("ssifab.one_way", "One-way", 8, nil, 2),
  again = ProtoField.bool("ssifab.again", "Again", 8, nil, 4),
  slot = ProtoField.uint16("ssifab.slot", "Slot"),
  sequence = ProtoField.uint64("ssifab.sequence", "Sequence"),
  head = ProtoField.uint32("ssifab.head", "Bytes of the head"),
  bulk = ProtoField.uint32("ssifab.bulk", "Bytes of the bulk"),
  deadline = ProtoField.uint32("ssifab.deadline", "Deadline (ms)"),
  credit = ProtoField.uint32("ssifab.credit", "Credit (KiB)"),
  region = ProtoField.uint64("ssifab.region", "Region"),
  epoch = ProtoField.uint32("ssifab.epoch", "Epoch"),
  notify = ProtoField.bool("ssifab.notify", "Notify", 32, nil, 1),
  offset = ProtoField.uint64("ssifab.offset", "Offset"),
  bytes = ProtoField.uint64("ssifab.bytes", "Bytes of the transfer"),
  at = ProtoField.uint64("ssifab.at", "At"),
  body = ProtoField.bytes("ssifab.body", "Body"),
  piece = ProtoField.bytes("ssifab.piece", "Part of a piece"),
}
for _, field in pairs(f) do
  table.insert(ssi.fields, field)
end

local MAGIC = "SSIFAB\r\n"
local HEADER, ACCESS, CHUNK, DIRECT_MIN, TAG = 32, 48, 262144, 4096, 16
local tcp_stream = Field.new("tcp.stream")

-- What the next bytes of a direction are, as far as packets were seen in order; and what it was at each place, for when a packet is
-- looked at again.
local now, memory = {}, {}

function ssi.init()
  now, memory = {}, {}
end

-- Bytes behind a header that are in its record.
local function inside(kind, head, bulk, more)
  if (kind == 6 or kind == 8) and bulk >= DIRECT_MIN then
    return head
  end
  if more and head + bulk > CHUNK then
    return CHUNK
  end
  return head + bulk
end

local function body_of(tvb, at)
  local flags = tvb(at + 5, 1):uint()
  return inside(tvb(at, 1):uint(), tvb(at + 16, 4):le_uint(), tvb(at + 20, 4):le_uint(), flags % 2 == 1)
end

-- True if what begins here looks like a record that is not sealed.
local function is_plain(tvb, at)
  local length, flag = tvb(at, 3):le_uint(), tvb(at + 3, 1):uint()
  local kind, channel, verdict = tvb(at + 4, 1):uint(), tvb(at + 5, 1):uint(), tvb(at + 8, 1):uint()
  return flag == 0 and kind <= 10 and channel <= 3 and verdict <= 6 and tvb(at + 9, 1):uint() <= 7
    and HEADER + body_of(tvb, at + 4) <= length
end

local function show_access(tvb, at, tree)
  tree:add_le(f.region, tvb(at, 8))
  tree:add_le(f.epoch, tvb(at + 16, 4))
  tree:add_le(f.notify, tvb(at + 20, 4))
  tree:add_le(f.offset, tvb(at + 24, 8))
  tree:add_le(f.bytes, tvb(at + 32, 8))
  tree:add_le(f.at, tvb(at + 40, 8))
end

local function show_frame(tvb, at, length, tree)
  local kind = tvb(at, 1):uint()
  local text = string.format("%s %s slot %d sequence %s", KINDS[kind] or "?", CHANNELS[tvb(at + 1, 1):uint()] or "?",
    tvb(at + 6, 2):le_uint(), tostring(tvb(at + 8, 8):le_uint64()))
  local frame = tree:add(tvb(at, HEADER + length), "Frame: " .. text)
  frame:add(f.kind, tvb(at, 1))
  frame:add(f.channel, tvb(at + 1, 1))
  frame:add_le(f.service, tvb(at + 2, 2))
  frame:add(f.verdict, tvb(at + 4, 1))
  for _, flag in ipairs({ f.more, f.one_way, f.again }) do
    frame:add(flag, tvb(at + 5, 1))
  end
  frame:add_le(f.slot, tvb(at + 6, 2))
  frame:add_le(f.sequence, tvb(at + 8, 8))
  frame:add_le(f.head, tvb(at + 16, 4))
  frame:add_le(f.bulk, tvb(at + 20, 4))
  frame:add_le(f.deadline, tvb(at + 24, 4))
  frame:add_le(f.credit, tvb(at + 28, 4))
  if kind >= 6 and kind <= 8 and length >= ACCESS then
    show_access(tvb, at + HEADER, frame)
  elseif length > 0 then
    frame:add(f.body, tvb(at + HEADER, length))
  end
  return text
end

-- Each of these takes what begins at `at` and gives its bytes and what follows it; nil if it is not whole yet.

local function opening(tvb, at, state, tree)
  local length = state.dials and 24 or 16
  if tvb:len() - at < length then
    return nil
  end
  local first = state.dials and 8 or 10
  local item = tree:add(tvb(at, length), state.dials and "Preamble" or "Answer")
  if not state.dials then
    item:add_le(f.status, tvb(at + 8, 2))
  end
  item:add_le(f.version_min, tvb(at + first, 2))
  item:add_le(f.version_max, tvb(at + first + 2, 2))
  if state.dials then
    item:add_le(f.key, tvb(at + 12, 4))
    item:add_le(f.cluster, tvb(at + 16, 8))
  end
  return length, "hello", state.dials and "preamble" or "answer"
end

local function hello(tvb, at, _, tree)
  if tvb:len() - at < 64 then
    return nil
  end
  tree:add(f.sealed, tvb(at, 64)):set_text("Hello, sealed")
  return 64, "terms", "hello"
end

local function terms(tvb, at, _, tree)
  if tvb:len() - at < 2 then
    return nil
  end
  local length = 2 + tvb(at, 2):le_uint()
  if tvb:len() - at < length then
    return nil
  end
  tree:add(f.sealed, tvb(at, length)):set_text("Terms, sealed")
  return length, "first", "terms"
end

local function record(tvb, at, state, tree)
  local left = tvb:len() - at
  if left < 4 or (state.next == "first" and left < 4 + HEADER) then
    return nil
  end
  local plain = state.next == "plain" or (state.next == "first" and is_plain(tvb, at))
  local length, flag = tvb(at, 3):le_uint(), tvb(at + 3, 1):uint()
  if left < 4 + length then
    return nil
  end
  local item = tree:add(tvb(at, 4 + length), "Record")
  item:add_le(f.length, tvb(at, 3))
  if not plain then
    item:add(f.sealed, tvb(at + 4, length))
    return 4 + length, "sealed", string.format("sealed %d bytes", length - TAG)
  end
  if flag == 1 then
    item:add(f.piece, tvb(at + 4, length))
    return 4 + length, "plain", string.format("piece %d bytes", length)
  end
  local texts, place = {}, at + 4
  while place + HEADER <= at + 4 + length do
    local body = body_of(tvb, place)
    if place + HEADER + body > at + 4 + length then
      break
    end
    table.insert(texts, show_frame(tvb, place, body, item))
    place = place + HEADER + body
  end
  return 4 + length, "plain", table.concat(texts, "; ")
end

local STEPS = { opening = opening, hello = hello, terms = terms, first = record, plain = record, sealed = record }

function ssi.dissector(tvb, pinfo, root)
  local stream = tostring(tcp_stream().value)
  local direction = stream .. " " .. tostring(pinfo.src) .. " " .. tostring(pinfo.src_port)
  if not now[direction] then
    now[direction] = { next = "opening", dials = not now[stream] }
    now[stream] = true
  end
  pinfo.cols.protocol = "SSI"
  local tree, at, texts = root:add(ssi, tvb()), 0, {}
  while at < tvb:len() do
    local key = direction .. " " .. pinfo.number .. " " .. at
    local state = memory[key] or now[direction]
    memory[key] = state
    local used, following, text = STEPS[state.next](tvb, at, state, tree)
    if not used then
      memory[key] = nil
      pinfo.desegment_offset = at
      pinfo.desegment_len = DESEGMENT_ONE_MORE_SEGMENT
      break
    end
    if not pinfo.visited then
      now[direction] = { next = following, dials = state.dials }
    end
    table.insert(texts, text)
    at = at + used
  end
  pinfo.cols.info = table.concat(texts, "; ")
  return tvb:len()
end

ssi:register_heuristic("tcp", function(tvb, pinfo, root)
  if tvb:len() < #MAGIC or tvb(0, #MAGIC):raw() ~= MAGIC then
    return false
  end
  pinfo.conversation = ssi
  ssi.dissector(tvb, pinfo, root)
  return true
end)
