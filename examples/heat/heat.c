/* heat: a plate whose picture is an image, cooled and heated step by step, by any number of MPI processes.
 *
 *   heat -g WxH plate.pgm                                     draw a plate to start from (one process is enough)
 *   heat [-s steps] [-k every] [-o prefix] input.pgm          solve
 *
 * A pixel is a temperature: black 0, white 1. White and black pixels of the input keep their temperature (heaters and
 * heat sinks), all others follow the heat equation, solved by Jacobi's method; the plate's edge is insulated. The plate
 * is cut into bands of rows, one a process; neighbours exchange their outermost row in each step.
 *
 * The input (P5 or P2) is read by every process on its own, the part it needs. An image is written by all of them
 * into one file, each its own rows. Nothing here knows what kind of cluster or filesystem it runs on.
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <mpi.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SIDE_MAX = 1 << 15, PATH_BYTES = 1024 };

typedef struct {
    long steps;         /* to compute */
    long every;         /* steps between two images; 0: only the last one */
    const char *prefix; /* of the images' names */
    const char *input;
    int width, height;  /* of the plate to draw; 0: solve */
} Options;

typedef struct {
    int rank, ranks;
    int width, height;   /* the whole plate */
    int first, rows;     /* our band */
    double *now, *next;  /* rows + 2 of each: a neighbour's row above and below */
    bool *fixed;         /* cells that keep their temperature */
} Plate;

/* ---- errors ------------------------------------------------------------------------------------------------ */

static void die(const char *what, const char *name, const char *why)
{
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    fprintf(stderr, "heat: rank %d: %s %s: %s\n", rank, what, name, why);
    MPI_Abort(MPI_COMM_WORLD, 1);
    exit(1);
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (!memory)
        die("cannot allocate", "memory", strerror(errno));
    return memory;
}

/* ---- images ------------------------------------------------------------------------------------------------ */

typedef struct {
    FILE *file;
    const char *name;
    bool text; /* P2 */
    int width, height, white;
} Image;

/* The next number of a PGM header; comments may stand anywhere in it. */
static int header_number(Image *image)
{
    int c = fgetc(image->file);
    while (c == '#' || c == ' ' || c == '\t' || c == '\n' || c == '\r') {
        if (c == '#')
            while (c != '\n' && c != EOF)
                c = fgetc(image->file);
        c = fgetc(image->file);
    }
    long number = 0;
    bool digits = false;
    for (; c >= '0' && c <= '9'; c = fgetc(image->file)) {
        number = number * 10 + (c - '0');
        digits = true;
        if (number > 65535)
            die("cannot read", image->name, "a number in its header is too large");
    }
    if (!digits)
        die("cannot read", image->name, "its header is damaged");
    return (int)number;
}

static Image open_image(const char *name)
{
    Image image = {.file = fopen(name, "rb"), .name = name};
    if (!image.file)
        die("cannot open", name, strerror(errno));
    int p = fgetc(image.file), kind = fgetc(image.file);
    if (p != 'P' || (kind != '5' && kind != '2'))
        die("cannot read", name, "it is no PGM image (P5 or P2)");
    image.text = kind == '2';
    image.width = header_number(&image);
    image.height = header_number(&image);
    image.white = header_number(&image);
    if (image.width < 3 || image.height < 3 || image.width > SIDE_MAX || image.height > SIDE_MAX)
        die("cannot use", name, "each side must have 3 to 32768 pixels");
    if (image.white < 1 || (!image.text && image.white > 255))
        die("cannot use", name, "a binary image must have one byte a pixel");
    return image;
}

/* `rows` rows from row `first` on, as temperatures. */
static void read_rows(Image *image, int first, int rows, double *cells)
{
    size_t width = (size_t)image->width, count = width * (size_t)rows, skip = width * (size_t)first;
    if (image->text) {
        int value;
        for (size_t i = 0; i < skip + count; i++) {
            if (fscanf(image->file, "%d", &value) != 1)
                die("cannot read", image->name, "it ends too early");
            if (i >= skip)
                cells[i - skip] = (double)value / image->white;
        }
        return;
    }
    unsigned char *bytes = allocate(count, 1);
    if (fseek(image->file, (long)skip, SEEK_CUR) || fread(bytes, 1, count, image->file) != count)
        die("cannot read", image->name, "it ends too early");
    for (size_t i = 0; i < count; i++)
        cells[i] = (double)bytes[i] / image->white;
    free(bytes);
}

static void write_at(int fd, const char *name, const unsigned char *bytes, size_t count, off_t offset)
{
    while (count) {
        ssize_t written = pwrite(fd, bytes, count, offset);
        if (written < 0)
            die("cannot write", name, strerror(errno));
        bytes += written;
        offset += written;
        count -= (size_t)written;
    }
}

/* All processes write the image together: rank 0 the header, each its own rows. */
static void write_image(const Plate *plate, const char *name)
{
    char header[64];
    int header_bytes = snprintf(header, sizeof header, "P5\n%d %d\n255\n", plate->width, plate->height);
    if (plate->rank == 0) {
        int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0666);
        if (fd < 0)
            die("cannot create", name, strerror(errno));
        write_at(fd, name, (unsigned char *)header, (size_t)header_bytes, 0);
        close(fd);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    size_t width = (size_t)plate->width, count = width * (size_t)plate->rows;
    unsigned char *bytes = allocate(count + 1, 1);
    for (size_t i = 0; i < count; i++)
        bytes[i] = (unsigned char)lrint(255.0 * plate->now[width + i]);
    int fd = open(name, O_WRONLY);
    if (fd < 0)
        die("cannot open", name, strerror(errno));
    write_at(fd, name, bytes, count, header_bytes + (off_t)(width * (size_t)plate->first));
    if (fsync(fd) || close(fd))
        die("cannot write", name, strerror(errno));
    free(bytes);
    MPI_Barrier(MPI_COMM_WORLD);
}

/* ---- the plate to start from ------------------------------------------------------------------------------- */

/* Cold at the left, a hot ring in the middle, two hot bars, and small heat sinks in a grid. */
static unsigned char drawn(int x, int y, int width, int height)
{
    double u = (double)x / width, v = (double)y / height;
    double r = hypot((u - 0.5) * width, (v - 0.5) * height) / (width < height ? width : height);
    if (r > 0.20 && r < 0.24)
        return 255;
    if (u > 0.85 && u < 0.88 && fabs(v - 0.5) < 0.35)
        return 255;
    if (v > 0.08 && v < 0.10 && u > 0.2 && u < 0.7)
        return 255;
    if (u < 0.02)
        return 0;
    if (fabs(fmod(u * 8, 1) - 0.5) < 0.03 && fabs(fmod(v * 8, 1) - 0.5) < 0.03)
        return 0;
    return 64;
}

static void draw_plate(const Options *options)
{
    FILE *file = fopen(options->input, "wb");
    if (!file)
        die("cannot create", options->input, strerror(errno));
    fprintf(file, "P5\n# a plate for heat\n%d %d\n255\n", options->width, options->height);
    for (int y = 0; y < options->height; y++)
        for (int x = 0; x < options->width; x++)
            fputc(drawn(x, y, options->width, options->height), file);
    if (fflush(file) || fsync(fileno(file)) || fclose(file))
        die("cannot write", options->input, strerror(errno));
    printf("plate of %d x %d pixels in %s\n", options->width, options->height, options->input);
}

/* ---- solving ----------------------------------------------------------------------------------------------- */

static Plate read_plate(const char *name, int rank, int ranks)
{
    Image image = open_image(name);
    Plate plate = {.rank = rank, .ranks = ranks, .width = image.width, .height = image.height};
    plate.first = (int)((int64_t)rank * image.height / ranks);
    plate.rows = (int)((int64_t)(rank + 1) * image.height / ranks) - plate.first;
    size_t width = (size_t)plate.width, cells = width * ((size_t)plate.rows + 2);
    plate.now = allocate(cells, sizeof *plate.now);
    plate.next = allocate(cells, sizeof *plate.next);
    plate.fixed = allocate(cells, sizeof *plate.fixed);
    read_rows(&image, plate.first, plate.rows, plate.now + width);
    fclose(image.file);
    for (size_t i = width; i < cells - width; i++)
        plate.fixed[i] = plate.now[i] <= 0.0 || plate.now[i] >= 1.0;
    return plate;
}

/* The rank whose band lies next to ours in direction `step`; a process may have no rows at all. */
static int neighbour(const Plate *plate, int step)
{
    for (int rank = plate->rank + step; rank >= 0 && rank < plate->ranks; rank += step) {
        int64_t first = (int64_t)rank * plate->height / plate->ranks;
        if ((int64_t)(rank + 1) * plate->height / plate->ranks > first)
            return rank;
    }
    return MPI_PROC_NULL;
}

/* Fills the rows above and below our band: from the neighbours, or with our own outermost row at the plate's edge. */
static void exchange(Plate *plate, int above, int below)
{
    int width = plate->width;
    double *top = plate->now, *bottom = plate->now + (size_t)width * ((size_t)plate->rows + 1);
    memcpy(top, top + width, (size_t)width * sizeof *top);
    memcpy(bottom, bottom - width, (size_t)width * sizeof *bottom);
    MPI_Sendrecv(top + width, width, MPI_DOUBLE, above, 0, bottom, width, MPI_DOUBLE, below, 0, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
    MPI_Sendrecv(bottom - width, width, MPI_DOUBLE, below, 1, top, width, MPI_DOUBLE, above, 1, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
}

/* One step of Jacobi's method over our band; gives back the largest change. */
static double relax(Plate *plate)
{
    int width = plate->width;
    double largest = 0;
    for (int row = 1; row <= plate->rows; row++) {
        const double *now = plate->now + (size_t)width * (size_t)row, *above = now - width, *below = now + width;
        double *next = plate->next + (size_t)width * (size_t)row;
        const bool *fixed = plate->fixed + (size_t)width * (size_t)row;
        for (int x = 0; x < width; x++) {
            double left = now[x > 0 ? x - 1 : 0], right = now[x + 1 < width ? x + 1 : x];
            double mean = 0.25 * (left + right + above[x] + below[x]);
            next[x] = fixed[x] ? now[x] : mean;
            largest = fmax(largest, fabs(next[x] - now[x]));
        }
    }
    double *swap = plate->now;
    plate->now = plate->next;
    plate->next = swap;
    return largest;
}

/* A sum that does not depend on how the plate was cut: of the pixels as they are written, weighted by their place. */
static unsigned long long checksum(const Plate *plate)
{
    size_t width = (size_t)plate->width;
    unsigned long long mine = 0, all = 0;
    for (size_t i = 0; i < width * (size_t)plate->rows; i++) {
        unsigned long long place = (unsigned long long)plate->first * width + i;
        mine += (unsigned long long)lrint(255.0 * plate->now[width + i]) * (place % 65521 + 1);
    }
    MPI_Reduce(&mine, &all, 1, MPI_UNSIGNED_LONG_LONG, MPI_SUM, 0, MPI_COMM_WORLD);
    return all;
}

static void solve(const Options *options, int rank, int ranks)
{
    Plate plate = read_plate(options->input, rank, ranks);
    int above = plate.rows ? neighbour(&plate, -1) : MPI_PROC_NULL;
    int below = plate.rows ? neighbour(&plate, 1) : MPI_PROC_NULL;
    if (rank == 0)
        printf("plate %d x %d, %ld steps, %d processes\n", plate.width, plate.height, options->steps, ranks);
    fflush(stdout);
    double start = MPI_Wtime(), residual = 0;
    for (long step = 1; step <= options->steps; step++) {
        if (plate.rows)
            exchange(&plate, above, below);
        double mine = relax(&plate);
        bool image = options->every && step % options->every == 0;
        if (!image && step != options->steps)
            continue;
        MPI_Reduce(&mine, &residual, 1, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
        if (rank == 0)
            printf("step %ld residual %.3e time %.2f s\n", step, residual, MPI_Wtime() - start);
        fflush(stdout);
        if (image && step != options->steps) {
            char name[PATH_BYTES];
            snprintf(name, sizeof name, "%s-%06ld.pgm", options->prefix, step);
            write_image(&plate, name);
        }
    }
    char name[PATH_BYTES];
    snprintf(name, sizeof name, "%s.pgm", options->prefix);
    write_image(&plate, name);
    unsigned long long sum = checksum(&plate);
    if (rank == 0)
        printf("done: %s checksum %016llx time %.2f s\n", name, sum, MPI_Wtime() - start);
    free(plate.now);
    free(plate.next);
    free(plate.fixed);
}

/* ---- command line ------------------------------------------------------------------------------------------ */

static bool parse(Options *options, int argc, char **argv)
{
    int letter;
    while ((letter = getopt(argc, argv, "s:k:o:g:")) != -1) {
        switch (letter) {
        case 's': options->steps = strtol(optarg, NULL, 10); break;
        case 'k': options->every = strtol(optarg, NULL, 10); break;
        case 'o': options->prefix = optarg; break;
        case 'g':
            if (sscanf(optarg, "%dx%d", &options->width, &options->height) != 2 || options->width < 3
                || options->height < 3 || options->width > SIDE_MAX || options->height > SIDE_MAX)
                return false;
            break;
        default: return false;
        }
    }
    options->input = argv[optind];
    return optind + 1 == argc && options->steps >= 0 && options->every >= 0
        && strlen(options->prefix) < PATH_BYTES - 64;
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    int rank, ranks;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    Options options = {.steps = 1000, .prefix = "heat-out"};
    if (!parse(&options, argc, argv)) {
        if (rank == 0)
            fprintf(stderr, "usage: heat -g WxH plate.pgm\n"
                            "       heat [-s steps] [-k every] [-o prefix] input.pgm\n");
        MPI_Finalize();
        return 2;
    }
    if (!options.width)
        solve(&options, rank, ranks);
    else if (rank == 0)
        draw_plate(&options);
    MPI_Finalize();
    return 0;
}
