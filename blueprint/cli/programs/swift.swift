let nonce = readLine() ?? ""
var value: UInt32 = 2_166_136_261
for byte in (nonce + "swift").utf8 {
    value = (value ^ UInt32(byte)) &* 16_777_619
}
let digits = String(value, radix: 16)
print(String(nonce.reversed()), String(repeating: "0", count: 8 - digits.count) + digits)
