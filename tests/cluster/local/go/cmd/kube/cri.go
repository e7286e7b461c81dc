package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// criMain is the little of crictl that this cluster needs: "images" tells which images a node has (as
// JSON), "clear" stops and removes every pod sandbox, so that the network plugin undoes its work.
func criMain(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("usage: cri SOCKET images|clear")
	}
	connection, err := grpc.NewClient("unix://"+args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	switch args[2] {
	case "images":
		return listImages(ctx, cri.NewImageServiceClient(connection))
	case "clear":
		return clearPods(ctx, cri.NewRuntimeServiceClient(connection))
	}
	return fmt.Errorf("cri: no such verb: %s", args[2])
}

func listImages(ctx context.Context, client cri.ImageServiceClient) error {
	response, err := client.ListImages(ctx, &cri.ListImagesRequest{})
	if err != nil {
		return err
	}
	ids := map[string]string{} // tag -> id
	for _, image := range response.Images {
		for _, tag := range image.RepoTags {
			ids[tag] = image.Id
		}
	}
	return json.NewEncoder(os.Stdout).Encode(ids)
}

func clearPods(ctx context.Context, client cri.RuntimeServiceClient) error {
	response, err := client.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	done := make(chan error)
	for _, pod := range response.Items {
		go func() {
			if _, err := client.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: pod.Id}); err != nil {
				done <- err
				return
			}
			_, err := client.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: pod.Id})
			done <- err
		}()
	}
	var failed error
	for range response.Items {
		failed = errors.Join(failed, <-done)
	}
	return failed
}
