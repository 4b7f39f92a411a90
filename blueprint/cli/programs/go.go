package main

import (
	"bufio"
	"fmt"
	"hash/fnv"
	"os"
	"slices"
	"strings"
)

func main() {
	line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	nonce := strings.TrimSpace(line)
	hash := fnv.New32a()
	hash.Write([]byte(nonce + "go"))
	reversed := []rune(nonce)
	slices.Reverse(reversed)
	fmt.Printf("%s %08x\n", string(reversed), hash.Sum32())
}
