// Sysinfo prints what a router's owner asks first: how long it is up, its load, its memory, its interfaces, its wireless.
// It reads /proc and /sys alone, so it runs on any router without further programs.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

func main() {
	host, _ := os.Hostname()
	fmt.Printf("%s: %s/%s, Linux %s\n", host, runtime.GOOS, runtime.GOARCH, firstLine("/proc/sys/kernel/osrelease"))
	uptime()
	memory()
	interfaces()
	wireless()
}

// firstLine is the first line of a file, or nothing if it cannot be read.
func firstLine(path string) string {
	content, _ := os.ReadFile(path)
	line, _, _ := strings.Cut(string(content), "\n")
	return line
}

func uptime() {
	seconds, _ := strconv.ParseFloat(strings.Fields(firstLine("/proc/uptime") + " 0")[0], 64)
	fmt.Printf("up %s", (time.Duration(seconds) * time.Second))
	if load := strings.Fields(firstLine("/proc/loadavg")); len(load) >= 3 {
		fmt.Printf(", load %s", strings.Join(load[:3], " "))
	}
	fmt.Println()
}

func memory() {
	file, err := os.Open("/proc/meminfo")
	if err != nil {
		return
	}
	defer file.Close()
	kib := map[string]int{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		if fields := strings.Fields(rest); len(fields) > 0 {
			kib[name], _ = strconv.Atoi(fields[0])
		}
	}
	// Kernels before 3.14 do not say what is available.
	available, known := kib["MemAvailable"]
	if !known {
		available = kib["MemFree"] + kib["Buffers"] + kib["Cached"] - kib["Shmem"]
	}
	fmt.Printf("memory %d of %d MiB available, %d MiB in tmpfs\n", available>>10, kib["MemTotal"]>>10, kib["Shmem"]>>10)
}

// interfaces lists what /sys knows; the addresses come from the kernel by netlink, which an emulated router may lack.
func interfaces() {
	addresses := map[string][]string{}
	all, err := net.Interfaces()
	for _, i := range all {
		list, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, address := range list {
			addresses[i.Name] = append(addresses[i.Name], address.String())
		}
	}
	directories, _ := filepath.Glob("/sys/class/net/*")
	for _, directory := range directories {
		name := filepath.Base(directory)
		state, hardware := firstLine(directory+"/operstate"), firstLine(directory+"/address")
		fmt.Printf("%-10s %-8s %-17s %s\n", name, state, hardware, strings.Join(addresses[name], " "))
	}
	if err != nil {
		fmt.Println("addresses are not known:", err)
	}
}

func wireless() {
	radios, _ := filepath.Glob("/sys/class/ieee80211/*")
	for _, radio := range radios {
		fmt.Printf("wireless %s %s\n", filepath.Base(radio), firstLine(radio+"/macaddress"))
	}
	file, err := os.Open("/proc/net/wireless")
	if err != nil {
		return
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for number := 0; lines.Scan(); number++ {
		// Two lines of headings, then interface, status, link quality, signal level.
		if fields := strings.Fields(lines.Text()); number >= 2 && len(fields) >= 4 {
			fmt.Printf("wireless %s quality %s signal %s\n", fields[0], fields[2], fields[3])
		}
	}
}
