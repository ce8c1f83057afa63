// kstatus reads a JSON array of objects from stdin and writes the status of each, as the library that
// Flux and kpt share computes it: [{"status": ..., "message": ...}].
package main

import (
	"encoding/json"
	"io"
	"log"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kubernetes "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

func main() {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	var objects []any
	// Not encoding/json, which reads whole numbers as floats: generations would not be seen.
	if err := kubernetes.Unmarshal(text, &objects); err != nil {
		log.Fatal(err)
	}
	results := make([]map[string]string, len(objects))
	for i, object := range objects {
		result, err := status.Compute(&unstructured.Unstructured{Object: object.(map[string]any)})
		if err != nil {
			log.Fatal(err)
		}
		results[i] = map[string]string{"status": string(result.Status), "message": result.Message}
	}
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		log.Fatal(err)
	}
}
