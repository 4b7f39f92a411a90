#include <cstdint>
#include <cstdio>
#include <iostream>
#include <string>

int main() {
    std::string nonce;
    std::cin >> nonce;
    std::uint32_t value = 2166136261u;
    for (unsigned char byte : nonce + "cpp") {
        value = (value ^ byte) * 16777619u;
    }
    std::printf("%s %08x\n", std::string(nonce.rbegin(), nonce.rend()).c_str(), value);
}
