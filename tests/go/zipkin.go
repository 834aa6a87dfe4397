// Takes spans as a Zipkin server does, POST /api/v2/spans, and reads them with
// the model of OpenZipkin's own Go library, which refuses what is not version 2
// of its format. Says where it listens, then one line of JSON for each span as
// that library writes it, or what it found wrong.
package main

import (
	"encoding/json"
	"fmt"
	"io/ioutil"
	"log"
	"net"
	"net/http"
	"sync"

	"github.com/openzipkin/zipkin-go/model"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", listener.Addr())
	var output sync.Mutex
	http.HandleFunc("/api/v2/spans", func(w http.ResponseWriter, r *http.Request) {
		output.Lock()
		defer output.Unlock()
		lines, err := read(r)
		if err != nil {
			fmt.Println("error:", err)
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for _, line := range lines {
			fmt.Println(line)
		}
		w.WriteHeader(http.StatusAccepted)
	})
	log.Fatal(http.Serve(listener, nil))
}

func read(r *http.Request) ([]string, error) {
	if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
		return nil, fmt.Errorf("%s of %q", r.Method, r.Header.Get("Content-Type"))
	}
	body, err := ioutil.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	var spans []model.SpanModel
	if err := json.Unmarshal(body, &spans); err != nil {
		return nil, fmt.Errorf("%v in %s", err, body)
	}
	var lines []string
	for _, span := range spans {
		line, err := json.Marshal(span)
		if err != nil {
			return nil, fmt.Errorf("%v in %s", err, body)
		}
		lines = append(lines, string(line))
	}
	return lines, nil
}
