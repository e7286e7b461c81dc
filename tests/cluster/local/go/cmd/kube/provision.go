package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

const (
	provisionerName  = "cluster.tenure.dev/directory"
	selectedNode     = "volume.kubernetes.io/selected-node"
	provisionedBy    = "pv.kubernetes.io/provisioned-by"
	firstNode        = "node1"
	hostnameLabel    = "kubernetes.io/hostname"
	sharedParameter  = "shared"
	longestClaimPart = 150 // with a namespace and a UID this stays below the 255 bytes of a file name
)

// provisioner makes a directory below dir for every claim that the scheduler has placed on node, and
// removes it with its volume. It exists because the usual helper pod per volume costs two seconds for
// each claim, which a test suite pays hundreds of times. A class with the parameter "shared" has volumes
// that every node can mount, as a network disk has: the nodes of this cluster have one file system.
type provisioner struct {
	node, dir string
	client    kubernetes.Interface
	claims    corelisters.PersistentVolumeClaimLister
	volumes   corelisters.PersistentVolumeLister
	classes   storagelisters.StorageClassLister
	queue     workqueue.TypedRateLimitingInterface[item]
}

// item names a claim (namespace set) or a volume (namespace empty).
type item struct{ namespace, name string }

func runProvisioner(ctx context.Context, client kubernetes.Interface, factory informers.SharedInformerFactory, node, dir string) error {
	p := &provisioner{
		node: node, dir: dir, client: client,
		claims:  factory.Core().V1().PersistentVolumeClaims().Lister(),
		volumes: factory.Core().V1().PersistentVolumes().Lister(),
		classes: factory.Storage().V1().StorageClasses().Lister(),
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[item](50*time.Millisecond, 5*time.Second)),
	}
	enqueue := func(object any) {
		if m, ok := object.(metav1.Object); ok {
			p.queue.Add(item{m.GetNamespace(), m.GetName()})
		}
	}
	handler := cache.ResourceEventHandlerFuncs{AddFunc: enqueue, UpdateFunc: func(_, object any) { enqueue(object) }}
	for _, informer := range []cache.SharedIndexInformer{
		factory.Core().V1().PersistentVolumeClaims().Informer(),
		factory.Core().V1().PersistentVolumes().Informer(),
		factory.Storage().V1().StorageClasses().Informer(),
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	for {
		key, stop := p.queue.Get()
		if stop {
			return nil
		}
		if err := p.sync(ctx, key); err != nil {
			log.Printf("provisioner: %s/%s: %v", key.namespace, key.name, err)
			p.queue.AddRateLimited(key)
		} else {
			p.queue.Forget(key)
		}
		p.queue.Done(key)
	}
}

func (p *provisioner) sync(ctx context.Context, key item) error {
	if key.namespace != "" {
		claim, err := p.claims.PersistentVolumeClaims(key.namespace).Get(key.name)
		if err != nil {
			return ignoreNotFound(err)
		}
		return p.provision(ctx, claim)
	}
	volume, err := p.volumes.Get(key.name)
	if err != nil {
		return ignoreNotFound(err) // also for the name of a storage class
	}
	return p.remove(ctx, volume)
}

func (p *provisioner) provision(ctx context.Context, claim *v1.PersistentVolumeClaim) error {
	if claim.Spec.VolumeName != "" || claim.DeletionTimestamp != nil || claim.Spec.StorageClassName == nil {
		return nil
	}
	class, err := p.classes.Get(*claim.Spec.StorageClassName)
	if err != nil || class.Provisioner != provisionerName {
		return ignoreNotFound(err)
	}
	if p.nodeFor(claim, class) != p.node {
		return nil
	}
	name := "pvc-" + string(claim.UID)
	if _, err := p.volumes.Get(name); err == nil {
		return nil
	}
	path := filepath.Join(p.dir, directoryName(claim.Namespace, claim.Name, name))
	if err := os.MkdirAll(path, 0o777); err != nil {
		return err
	}
	if err := os.Chmod(path, 0o777); err != nil { // the umask took its share
		return err
	}
	volume := &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{provisionedBy: provisionerName, selectedNode: p.node}},
		Spec: v1.PersistentVolumeSpec{
			AccessModes: claim.Spec.AccessModes,
			Capacity:    v1.ResourceList{v1.ResourceStorage: claim.Spec.Resources.Requests[v1.ResourceStorage]},
			ClaimRef: &v1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name,
				UID: claim.UID, ResourceVersion: claim.ResourceVersion,
			},
			PersistentVolumeSource:        v1.PersistentVolumeSource{Local: &v1.LocalVolumeSource{Path: path}},
			PersistentVolumeReclaimPolicy: v1.PersistentVolumeReclaimDelete,
			StorageClassName:              class.Name,
			MountOptions:                  class.MountOptions,
			VolumeMode:                    claim.Spec.VolumeMode,
			NodeAffinity: &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{
				MatchExpressions: []v1.NodeSelectorRequirement{p.mountedBy(class)},
			}}}},
		},
	}
	if class.ReclaimPolicy != nil {
		volume.Spec.PersistentVolumeReclaimPolicy = *class.ReclaimPolicy
	}
	_, err = p.client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func isShared(class *storagev1.StorageClass) bool { return class.Parameters[sharedParameter] == "true" }

// mountedBy says which nodes can mount a volume: a local one must say something, so a shared one says "any".
func (p *provisioner) mountedBy(class *storagev1.StorageClass) v1.NodeSelectorRequirement {
	if isShared(class) {
		return v1.NodeSelectorRequirement{Key: hostnameLabel, Operator: v1.NodeSelectorOpExists}
	}
	return v1.NodeSelectorRequirement{Key: hostnameLabel, Operator: v1.NodeSelectorOpIn, Values: []string{p.node}}
}

// nodeFor is the node whose agent makes the volume: the one that the scheduler chose or, for a class that does not
// wait for it, always the first; for a shared one too, since the first is never taken away.
func (p *provisioner) nodeFor(claim *v1.PersistentVolumeClaim, class *storagev1.StorageClass) string {
	if isShared(class) && claim.Annotations[selectedNode] != "" {
		return firstNode
	}
	if class.VolumeBindingMode == nil || *class.VolumeBindingMode == storagev1.VolumeBindingImmediate {
		return firstNode
	}
	return claim.Annotations[selectedNode]
}

func (p *provisioner) remove(ctx context.Context, volume *v1.PersistentVolume) error {
	if volume.Annotations[provisionedBy] != provisionerName || volume.Annotations[selectedNode] != p.node ||
		volume.Status.Phase != v1.VolumeReleased || volume.Spec.PersistentVolumeReclaimPolicy != v1.PersistentVolumeReclaimDelete ||
		volume.DeletionTimestamp != nil || volume.Spec.Local == nil {
		return nil
	}
	if filepath.Dir(volume.Spec.Local.Path) != filepath.Clean(p.dir) {
		return fmt.Errorf("%s is not below %s: left alone", volume.Spec.Local.Path, p.dir)
	}
	if err := os.RemoveAll(volume.Spec.Local.Path); err != nil {
		return err
	}
	return ignoreNotFound(p.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{}))
}

// directoryName carries namespace and claim so that a test can find the bytes of a volume; "_" is in neither.
func directoryName(namespace, claim, volume string) string {
	return fmt.Sprintf("%s_%.*s_%s", namespace, longestClaimPart, claim, volume)
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
