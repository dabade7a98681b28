/* An NVML with the real one's names and whatever GPUs the test wants.
 *
 * The file that FAKE_NVML names is read at each nvmlInit. Its words, separated by white space:
 *   gpus=N          how many GPUs there are
 *   init=E          nvmlInit returns the error E
 *   count=E         asking for their number returns the error E
 *   lost=I          GPU I has fallen off the bus
 *   shy=I           GPU I tells neither memory, load, temperature nor power
 *   powerless=I     GPU I does not tell its power
 *   hang=C          the call C (init, memory, power) does not return as long as the file says so
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, GPU_IS_LOST = 15 };
enum { MOST = 16 };

static int gpus, init_error, count_error, lost, shy, powerless, initialized;
static char hang[32];
static int devices[MOST];

static void read_control(void)
{
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char word[128];
    gpus = init_error = count_error = 0;
    lost = shy = powerless = -1;
    hang[0] = 0;
    if (!file)
        return;
    while (fscanf(file, "%127s", word) == 1) {
        sscanf(word, "gpus=%d", &gpus);
        sscanf(word, "init=%d", &init_error);
        sscanf(word, "count=%d", &count_error);
        sscanf(word, "lost=%d", &lost);
        sscanf(word, "shy=%d", &shy);
        sscanf(word, "powerless=%d", &powerless);
        sscanf(word, "hang=%31s", hang);
    }
    fclose(file);
}

static void hang_in(const char *call)
{
    for (; strcmp(hang, call) == 0; read_control())
        usleep(10000);
}

static int index_of(void *device)
{
    return (int)((int *)device - devices);
}

int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    read_control();
    hang_in("init");
    if (!init_error)
        initialized++;
    return init_error;
}

int nvmlShutdown(void)
{
    if (!initialized)
        return UNINITIALIZED;
    initialized--;
    return SUCCESS;
}

int nvmlSystemGetCudaDriverVersion(int *version)
{
    *version = 12040;
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    *count = (unsigned)gpus;
    return count_error;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device)
{
    if (index >= MOST)
        return INVALID_ARGUMENT;
    *device = &devices[index];
    return (int)index == lost ? GPU_IS_LOST : SUCCESS;
}

int nvmlDeviceGetName(void *device, char *name, unsigned length)
{
    snprintf(name, length, "NVIDIA Imaginary %d", index_of(device));
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *total_free_used)
{
    hang_in("memory");
    total_free_used[0] = 48ULL << 30;
    total_free_used[1] = 40ULL << 30;
    total_free_used[2] = 8ULL << 30;
    return index_of(device) == shy ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor)
{
    (void)device;
    *major = 8;
    *minor = 6;
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(void *device, unsigned *gpu_memory)
{
    gpu_memory[0] = 85;
    gpu_memory[1] = 20;
    return index_of(device) == shy ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius)
{
    (void)sensor;
    *celsius = 72;
    return index_of(device) == shy ? NOT_SUPPORTED : SUCCESS;
}

static int power(void *device, unsigned *milliwatts, unsigned value)
{
    hang_in("power");
    *milliwatts = value;
    return index_of(device) == shy || index_of(device) == powerless ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts)
{
    return power(device, milliwatts, 280500);
}

int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *milliwatts)
{
    return power(device, milliwatts, 300000);
}

const char *nvmlErrorString(int error)
{
    switch (error) {
    case NOT_SUPPORTED:
        return "Not Supported";
    case GPU_IS_LOST:
        return "GPU is lost";
    default:
        return "Unknown Error";
    }
}
