const nonce = require("node:fs").readFileSync(0, "utf8").trim();
let value = 2166136261;
for (const byte of Buffer.from(nonce + "javascript")) {
  value = Math.imul(value ^ byte, 16777619) >>> 0;
}
console.log([...nonce].reverse().join(""), value.toString(16).padStart(8, "0"));
