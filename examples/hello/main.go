// Hello greets from wherever it runs, and shows that arguments, the exit code and both outputs come through.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
)

func main() {
	exit := flag.Int("exit", 0, "exit with this `code`")
	flag.Parse()
	fmt.Printf("Hello from %s/%s!\n", runtime.GOOS, runtime.GOARCH)
	for i, arg := range flag.Args() {
		fmt.Printf("argument %d: %q\n", i+1, arg)
	}
	if *exit != 0 {
		fmt.Fprintf(os.Stderr, "exiting with %d\n", *exit)
	}
	os.Exit(*exit)
}
