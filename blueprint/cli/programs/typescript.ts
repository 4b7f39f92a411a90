import { readFileSync } from "node:fs";

interface Answer {
  reversed: string;
  hash: number;
}

function answer(nonce: string): Answer {
  let hash = 2166136261;
  for (const byte of Buffer.from(nonce + "typescript")) {
    hash = Math.imul(hash ^ byte, 16777619) >>> 0;
  }
  return { reversed: [...nonce].reverse().join(""), hash };
}

const { reversed, hash }: Answer = answer(readFileSync(0, "utf8").trim());
console.log(reversed, hash.toString(16).padStart(8, "0"));
