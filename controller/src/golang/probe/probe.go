// Probe does what Go's runtime asks of a kernel and a CPU: threads, timers, memory, floating point, files, sockets, signals,
// processes. It says nothing if all of it works, and else ends as Go programs end.
package main

import (
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// patience is for what happens at once, on a machine that has much else to do.
const patience = 20 * time.Second

func main() {
	if len(os.Args) > 1 {
		os.Exit(7)
	}
	for _, check := range []func() error{threads, timers, memory, arithmetic, files, sockets, signals, processes} {
		if err := check(); err != nil {
			fmt.Fprintln(os.Stderr, "probe:", err)
			os.Exit(1)
		}
	}
}

func threads() error {
	var count atomic.Int64
	var group sync.WaitGroup
	for range 8 {
		group.Add(1)
		go func() {
			defer group.Done()
			runtime.LockOSThread()
			for range 1000 {
				count.Add(1 << 31)
				runtime.Gosched()
			}
		}()
	}
	group.Wait()
	if count.Load() != 8000<<31 {
		return fmt.Errorf("8 threads counted to %d", count.Load())
	}
	return nil
}

func timers() error {
	begun := time.Now()
	time.Sleep(20 * time.Millisecond)
	select {
	case <-time.After(20 * time.Millisecond):
	case <-time.After(patience):
	}
	if waited := time.Since(begun); waited < 40*time.Millisecond || waited > patience {
		return fmt.Errorf("40 ms took %v", waited)
	}
	return nil
}

func memory() error {
	kept := map[int][]byte{}
	for n := range 2000 {
		kept[n%20] = make([]byte, 4096)
		kept[n%20][n] = byte(n)
	}
	runtime.GC()
	for n := 1980; n < 2000; n++ {
		if kept[n%20][n] != byte(n) {
			return fmt.Errorf("memory was lost")
		}
	}
	return nil
}

func arithmetic() error {
	x, wide := math.Sqrt(2), uint64(math.MaxUint32)
	if math.Abs(x*x-2) > 1e-12 || wide*wide/wide != wide || int64(-7.9*float64(len(os.Args))) != -7 {
		return fmt.Errorf("the square of the root of 2 is %v", x*x)
	}
	return nil
}

func files() error {
	path := filepath.Join(os.TempDir(), "probe")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		return err
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 1 {
		return fmt.Errorf("a file of one byte: %v, %v", info, err)
	}
	return os.Remove(path)
}

func sockets() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() {
		if connection, err := listener.Accept(); err == nil {
			connection.Write([]byte("x"))
			connection.Close()
		}
	}()
	connection, err := net.DialTimeout("tcp", listener.Addr().String(), patience)
	if err != nil {
		return err
	}
	connection.SetDeadline(time.Now().Add(patience))
	if n, err := connection.Read(make([]byte, 2)); n != 1 {
		return fmt.Errorf("nothing came through a socket: %w", err)
	}
	return connection.Close()
}

func signals() error {
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGUSR1)
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
		return err
	}
	select {
	case <-caught:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("a signal was lost")
	}
}

func processes() error {
	child := exec.Command(os.Args[0], "child")
	if child.Run(); child.ProcessState == nil || child.ProcessState.ExitCode() != 7 {
		return fmt.Errorf("a child that exits with 7: %v", child.ProcessState)
	}
	return nil
}
