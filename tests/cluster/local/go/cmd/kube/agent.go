package main

import (
	"context"
	"fmt"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// agentMain runs what a node needs beside the kubelet: the enforcement of NetworkPolicies and the
// provisioning of volumes. Both in one process, because each further process of this binary costs 100 MB.
func agentMain(args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("usage: agent KUBECONFIG NODE VOLUME_ROOT")
	}
	config, err := clientcmd.BuildConfigFromFlags("", args[1])
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 200, 400 // fifty claims at once must not queue up behind the default of 5 per second
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	factory := informers.NewSharedInformerFactory(client, 0)
	ended := make(chan error, 2)
	go func() { ended <- runProvisioner(ctx, client, factory, args[2], args[3]) }()
	go func() { ended <- runNetworkPolicies(ctx, factory, args[2]) }()
	return <-ended
}
